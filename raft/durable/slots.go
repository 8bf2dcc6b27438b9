package durable

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
)

// slotHead is the number and the length of what a slot holds, and its SHA-256 together with both.
const slotHead = 8 + 8 + sha256.Size

// Slots is a small file that is rewritten in place: two slots of fixed size take turns, so that a write
// that is cut short leaves the one before. Unlike Write it needs no free space: a full disk must not
// keep a node from noting its vote. Safe for concurrent use.
type Slots struct {
	mu   sync.Mutex
	file *os.File
	size int
	seq  uint64
}

func slotSum(slot []byte, n uint64) []byte {
	h := sha256.New()
	h.Write(slot[:16])
	h.Write(slot[slotHead : slotHead+n])
	return h.Sum(nil)
}

// ReadSlots returns what was written last to a file with slots of size bytes. The error is
// fs.ErrNotExist if nothing ever was, ErrDamaged if neither slot is intact.
func ReadSlots(path string, size int) (body []byte, err error) {
	body, _, err = readSlots(path, size)
	return body, err
}

func readSlots(path string, size int) (body []byte, seq uint64, err error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, 0, err
	}
	if len(bytes.Trim(raw, "\x00")) == 0 {
		return nil, 0, fmt.Errorf("%s: %w", path, fs.ErrNotExist)
	}
	for i := range 2 {
		slot := raw[min(i*size, len(raw)):min((i+1)*size, len(raw))]
		if len(slot) < slotHead {
			continue
		}
		at, n := binary.BigEndian.Uint64(slot), binary.BigEndian.Uint64(slot[8:])
		if at > seq && n <= uint64(len(slot)-slotHead) && bytes.Equal(slotSum(slot, n), slot[16:slotHead]) {
			body, seq = slot[slotHead:slotHead+n], at
		}
	}
	if seq == 0 {
		return nil, 0, fmt.Errorf("%s: %w", path, ErrDamaged)
	}
	return body, seq, nil
}

// OpenSlots opens the file for writing and takes the space for both slots. What it holds stays until
// Write, unless it is damaged as a whole.
func OpenSlots(path string, size int) (*Slots, error) {
	_, seq, err := readSlots(path, size)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrDamaged) {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if short := int64(2 * size); err == nil && info.Size() < short {
		_, err = f.WriteAt(make([]byte, short-info.Size()), info.Size())
	}
	if err = errors.Join(err, f.Sync()); err != nil {
		f.Close()
		return nil, err
	}
	return &Slots{file: f, size: size, seq: seq}, nil
}

// Write replaces what the file holds. It is on disk when Write returns only if sync is set.
func (s *Slots) Write(body []byte, sync bool) error {
	if len(body) > s.size-slotHead {
		return fmt.Errorf("%s: %d bytes do not fit in a slot of %d", s.file.Name(), len(body), s.size)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	slot := make([]byte, slotHead, slotHead+len(body))
	binary.BigEndian.PutUint64(slot, s.seq+1)
	binary.BigEndian.PutUint64(slot[8:], uint64(len(body)))
	slot = append(slot, body...)
	copy(slot[16:], slotSum(slot, uint64(len(body))))
	if _, err := s.file.WriteAt(slot, int64((s.seq+1)%2)*int64(s.size)); err != nil {
		return err
	}
	s.seq++
	if sync {
		return s.file.Sync()
	}
	return nil
}

// Close makes what was written durable and closes the file.
func (s *Slots) Close() error { return errors.Join(s.file.Sync(), s.file.Close()) }
