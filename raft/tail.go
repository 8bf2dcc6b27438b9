package raft

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"sync"

	"appliance/raft/durable"
)

// tailRecord says what this node has acknowledged: without it a damaged end of the log cannot be told
// from a write that a crash cut short, and a node would forget silently what it has promised to keep.
type tailRecord struct {
	last uint64 // index of the last entry that was stored, 0 if the log was emptied
	sum  uint32 // of that entry
	snap uint64 // index of the newest snapshot
}

const (
	tailFile = "tail"
	tailSlot = 128 // never torn, as it lies within a sector
)

// tail keeps the record. It is written after the entries themselves and without waiting for the disk: a
// crash of the process loses nothing, a loss of power leaves an older record, which is true as well. Safe
// for concurrent use.
type tail struct {
	mu   sync.Mutex
	file *durable.Slots
	rec  tailRecord
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// readTail returns the newest record. found is false if none is intact.
func readTail(path string) (rec tailRecord, found bool, err error) {
	b, err := durable.ReadSlots(path, tailSlot)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, durable.ErrDamaged) || err == nil && len(b) != 24 {
		return rec, false, nil
	}
	if err != nil {
		return rec, false, err
	}
	num := func(i int) uint64 { return binary.BigEndian.Uint64(b[8*i:]) }
	return tailRecord{last: num(0), sum: uint32(num(1)), snap: num(2)}, true, nil
}

// openTail goes on from a record that was found to be true.
func openTail(path string, rec tailRecord) (*tail, error) {
	f, err := durable.OpenSlots(path, tailSlot)
	if err != nil {
		return nil, err
	}
	t := &tail{file: f, rec: rec}
	if err := t.change(true, func(*tailRecord) {}); err != nil {
		f.Close()
		return nil, err
	}
	return t, nil
}

// change writes the record after edit; it waits for the disk if sync is set.
func (t *tail) change(sync bool, edit func(*tailRecord)) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	rec := t.rec
	edit(&rec)
	b := make([]byte, 0, 24)
	for _, v := range []uint64{rec.last, uint64(rec.sum), rec.snap} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	if err := t.file.Write(b, sync); err != nil {
		return err
	}
	t.rec = rec
	return nil
}

func (t *tail) close() error { return t.file.Close() }
