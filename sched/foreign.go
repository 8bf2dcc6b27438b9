package sched

import (
	"crypto/sha256"
	"encoding/binary"

	"appliance/node/model"
)

// StatusUUID names the present status of a task for the framework that has to
// acknowledge it. It is derived from the task and the number of the report, so
// that every master gives the same, also for a status that masters wrote.
func StatusUUID(t *model.Task) [16]byte {
	b := binary.BigEndian.AppendUint64([]byte(t.ID+"\x00"), t.Status.Seq)
	sum := sha256.Sum256(b)
	id := [16]byte(sum[:16])
	id[6] = id[6]&0x0f | 0x80 // version 8: custom (RFC 9562)
	id[8] = id[8]&0x3f | 0x80
	return id
}

// Acknowledged reports whether the framework has seen the present status.
func Acknowledged(t *model.Task) bool {
	id := StatusUUID(t)
	return t.Acked == string(AppendUUID(nil, id))
}

// AppendUUID writes the usual text form.
func AppendUUID(b []byte, id [16]byte) []byte {
	const digits = "0123456789abcdef"
	for i, x := range id {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			b = append(b, '-')
		}
		b = append(b, digits[x>>4], digits[x&15])
	}
	return b
}
