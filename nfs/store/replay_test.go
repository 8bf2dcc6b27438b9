package store

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"testing"

	"appliance/nfs/proto"
	seeded "appliance/node/replay"
)

// Any records, most of which fit: what they do, what they refuse and what is
// saved is always the same.
func TestTableReplaysExactly(t *testing.T) {
	seeded.Exactly(t, func(r *rand.Rand, say seeded.Say) {
		table := NewTable(0o755, 0, 0, 1)
		for i := range 600 {
			rec := someRecord(r, table)
			rec.LSN, rec.Time = table.LSN()+1, int64(i)
			say(fmt.Sprint(rec.Op, " ", table.Apply(rec)))
			if i%20 > 0 {
				continue
			}
			saved := table.Encode()
			say(fmt.Sprintf("%x", sha256.Sum256(saved)))
			again, err := DecodeTable(saved)
			if err != nil || !bytes.Equal(again.Encode(), saved) {
				t.Fatalf("saved, read and saved again it is another table: %v", err)
			}
			if r.IntN(3) == 0 {
				table = again
			}
		}
	})
}

func someRecord(r *rand.Rand, t *Table) *Record {
	name := func() string { return fmt.Sprint("n", r.IntN(12)) }
	rec := &Record{Dir: Root, Dir2: Root, Name: name(), Name2: name(), Kind: proto.Reg, Ino: Ino(1 + r.IntN(40)), Client: name(),
		Op: seeded.One(r, OpCreate, OpCreate, OpRemove, OpRename, OpLink, OpSetAttr, OpWrite, OpFree, OpClient, OpClientGone, OpForget)}
	rec.Origin = Origin{Session: proto.SessionID{byte(r.IntN(4))}, Slot: uint32(r.IntN(3)), Seq: uint32(r.IntN(4)), Index: uint32(r.IntN(4))}
	n := t.inodes[rec.Ino]
	switch {
	case rec.Op == OpCreate && r.IntN(4) > 0:
		rec.Ino = t.nextIno
	case rec.Op == OpRename && rec.Name == rec.Name2, // never logged
		rec.Op == OpFree && (n == nil || n.Nlink > 0):
		rec.Op = OpClient
	case rec.Op == OpSetAttr:
		rec.Set = proto.SetAttr{Mask: proto.Bits(proto.AttrSize), Size: uint64(r.IntN(100))}
	case rec.Op == OpWrite:
		rec.Off, rec.Data = uint64(r.IntN(100)), []byte(name())
	}
	return rec
}
