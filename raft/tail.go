package raft

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
	"sync"
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
	tailSlot = 64 // bytes; never torn, as it lies within a sector
)

// tail keeps the record in two slots that are written in turn, after the entries themselves and without
// waiting for the disk: a crash of the process loses nothing, a loss of power leaves an older record,
// which is true as well. Safe for concurrent use.
type tail struct {
	mu   sync.Mutex
	file *os.File
	seq  uint64
	rec  tailRecord
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (r tailRecord) encode(seq uint64) []byte {
	b := make([]byte, 0, tailSlot)
	for _, v := range []uint64{seq, r.last, uint64(r.sum), r.snap} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	b = b[:tailSlot-4]
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// readTail returns the newest record. found is false if no slot is intact.
func readTail(path string) (rec tailRecord, seq uint64, found bool, err error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return rec, 0, false, nil
	}
	for len(raw) >= tailSlot {
		slot := raw[:tailSlot]
		raw = raw[tailSlot:]
		num := func(i int) uint64 { return binary.BigEndian.Uint64(slot[8*i:]) }
		if crc32.Checksum(slot[:tailSlot-4], castagnoli) != binary.BigEndian.Uint32(slot[tailSlot-4:]) || num(0) <= seq {
			continue
		}
		seq, found = num(0), true
		rec = tailRecord{last: num(1), sum: uint32(num(2)), snap: num(3)}
	}
	return rec, seq, found, err
}

// openTail goes on from a record that was found to be true.
func openTail(path string, rec tailRecord, seq uint64) (*tail, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	t := &tail{file: f, seq: seq, rec: rec}
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
	if _, err := t.file.WriteAt(rec.encode(t.seq+1), int64((t.seq+1)%2)*tailSlot); err != nil {
		return err
	}
	t.seq, t.rec = t.seq+1, rec
	if sync {
		return t.file.Sync()
	}
	return nil
}

func (t *tail) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return errors.Join(t.file.Sync(), t.file.Close())
}
