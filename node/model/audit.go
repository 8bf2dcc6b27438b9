package model

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"
)

// Actor is on whose behalf a change was made, as the node that took the
// request has seen it.
type Actor struct {
	Who  string `json:"who"`  // "root", "token ID (NAME)", "loopback" or "anonymous"
	From string `json:"from"` // remote address, or "unix socket"
	Node string `json:"node"` // id of the node that took the request
	Via  string `json:"via"`  // method and path of the request
}

// AuditRecord is one accepted change. Records form a chain: each holds the
// hash of the one before, so that none can be edited, removed or moved
// without breaking what follows.
type AuditRecord struct {
	Meta
	Seq     uint64    `json:"seq"`   // from 1, without gaps
	Index   uint64    `json:"index"` // log index of the change
	At      time.Time `json:"at"`
	Actor   Actor     `json:"actor"`
	What    string    `json:"what"` // name of the command
	Subject string    `json:"subject,omitempty"`
	Prev    []byte    `json:"prev,omitempty"` // Hash of the record before; empty in the first
	Hash    []byte    `json:"hash"`
}

// Key is the record's id in the state.
func (r *AuditRecord) Key() string { return AuditKey(r.Seq) }

// AuditKey is the id of the record with a number.
func AuditKey(seq uint64) string { return fmt.Sprintf("%020d", seq) }

// Sum is the hash that the record must have: SHA-256 of "appliance-audit/1",
// the numbers Seq, Index, seconds and nanoseconds of At since 1970 (8 bytes
// each, big endian), and the texts Who, From, Node, Via, What, Subject and
// Prev, each behind its length as such a number.
func (r *AuditRecord) Sum() []byte {
	b := append(make([]byte, 0, 512), "appliance-audit/1"...) // most records fit, and it stays on the stack
	for _, n := range []uint64{r.Seq, r.Index, uint64(r.At.Unix()), uint64(r.At.Nanosecond())} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	for _, s := range []string{r.Actor.Who, r.Actor.From, r.Actor.Node, r.Actor.Via, r.What, r.Subject, string(r.Prev)} {
		b = binary.BigEndian.AppendUint64(b, uint64(len(s)))
		b = append(b, s...)
	}
	sum := sha256.Sum256(b)
	return sum[:]
}

// StagedChunk is one piece of a snapshot file on its way into the state.
type StagedChunk struct {
	Meta
	ID   string `json:"id"` // of the restore
	N    int    `json:"n"`
	Data []byte `json:"data"`
}

// Key is the chunk's id in the state.
func (c *StagedChunk) Key() string { return fmt.Sprintf("%s/%08d", c.ID, c.N) }

// BrokenChain says where an audit log is not what was once written.
type BrokenChain struct {
	Position int    `json:"position"` // in the list, from 0
	Seq      uint64 `json:"seq"`
	Why      string `json:"why"`
}

func (b *BrokenChain) Error() string {
	return fmt.Sprintf("audit record %d is not as it was written: %s", b.Seq, b.Why)
}

// VerifyAudit recomputes the chain of records, oldest first, and returns the
// first broken one, nil if there is none. A log that keeps the newest bound
// records may begin later than with the first. What is cut off at the newest
// end can only be told by whoever knows a later hash.
func VerifyAudit(records []AuditRecord, bound int) *BrokenChain {
	for i := range records {
		r := &records[i]
		why := ""
		switch {
		case i == 0 && r.Seq == 1 && len(r.Prev) > 0:
			why = "it is the first but names one before it"
		case i == 0 && r.Seq > 1 && len(records) < bound:
			why = fmt.Sprintf("the %d before it are missing", r.Seq-1)
		case i > 0 && r.Seq != records[i-1].Seq+1:
			why = fmt.Sprintf("it follows record %d", records[i-1].Seq)
		case i > 0 && !bytes.Equal(r.Prev, records[i-1].Hash):
			why = "it does not follow from the one before it"
		case !bytes.Equal(r.Hash, r.Sum()):
			why = "its content does not match its hash"
		default:
			continue
		}
		return &BrokenChain{Position: i, Seq: r.Seq, Why: why}
	}
	return nil
}
