package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// A data file has a checksum (CRC-32C) for each block, in a file of its own, made at a checkpoint. Every read and
// every write of part of a block is checked, but for blocks that have changed since: the log has those.
//
// After a crash a sum must be true, or the log must tell that its block has changed. Data may reach the disk
// before its record does; so the first write to a block that has a sum waits for its record. See Volume.Write.
const (
	sumBlock = 4 << 10
	sumLen   = 4 // 0: no sum, for a hole or what was written before there were sums
	sumsDir  = "sums"
	// sumsName is the file that says up to which LSN the sums are true. A release without sums does not move
	// it: what that has left behind is not believed.
	sumsName  = "sums.lsn"
	sumsMagic = "appliance volume sums\n"
)

// blocks is a set of blocks: single ones, and all from one on.
type blocks struct {
	from   uint64
	single map[uint64]bool
}

func noBlocks() blocks { return blocks{from: math.MaxUint64, single: map[uint64]bool{}} }

func (b blocks) has(i uint64) bool { return i >= b.from || b.single[i] }
func (b blocks) empty() bool       { return b.from == math.MaxUint64 && len(b.single) == 0 }

func (b *blocks) merge(o blocks) {
	b.from = min(b.from, o.from)
	maps.Copy(b.single, o.single)
}

// span is which blocks n bytes at off lie in, n > 0.
func span(off, n uint64) (from, to uint64) {
	return off / sumBlock, (off + n + sumBlock - 1) / sumBlock
}

func sumOf(block []byte) uint32 {
	return max(1, crc32.Checksum(block, castagnoli)) // 0 is none
}

// changed notes that blocks have no true sum any more. Called under the volume's lock, together with the record: a
// checkpoint has both or neither. It tells whether one of them is getting a sum and changes for the first time since
// that began: then the record has to be durable before the data is written, and before the file's mu is let go.
func (fs *files) changed(f *file, off, n uint64) (wait bool) {
	if n == 0 {
		return false
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for i, to := span(off, n); i < to; i++ {
		wait = wait || f.closing.has(i) && !f.stale.has(i)
		f.stale.single[i] = true
	}
	return wait
}

// cut is changed for everything from size on.
func (fs *files) cut(f *file, size uint64) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f.stale.single[size/sumBlock] = true
	f.stale.from = min(f.stale.from, size/sumBlock)
}

// sumsOf returns the sums of blocks, 0 for those that have none to compare with, and whether one of them has, or
// is about to get, a sum on disk. Called with the file's mu.
func (fs *files) sumsOf(ino Ino, f *file, from, to uint64) (sums []uint32, any bool, err error) {
	fs.mu.Lock()
	sums = make([]uint32, to-from)
	look := false
	for i := range sums {
		b := from + uint64(i)
		switch {
		case f.stale.has(b): // even if it is getting a sum: who made it stale meanwhile has waited
		case f.closing.has(b):
			any = true
		default:
			sums[i], look = 1, true
		}
	}
	fs.mu.Unlock()
	if !look {
		return sums, any, nil
	}
	s, err := fs.sumFile(ino, f)
	if err != nil {
		return nil, false, err
	}
	raw := make([]byte, len(sums)*sumLen)
	if s != nil {
		if _, err := s.ReadAt(raw, int64(from*sumLen)); err != nil && err != io.EOF {
			return nil, false, err
		}
	}
	for i := range sums {
		if sums[i] != 0 {
			sums[i] = binary.BigEndian.Uint32(raw[i*sumLen:])
			any = any || sums[i] != 0
		}
	}
	return sums, any, nil
}

// sumFile returns the sums of a data file, which stay open; nil if there are none.
func (fs *files) sumFile(ino Ino, f *file) (*os.File, error) {
	f.once.Lock()
	defer f.once.Unlock()
	if f.sums != nil || f.sumless {
		return f.sums, nil
	}
	s, err := fs.openSums(ino, f, false)
	if s == nil {
		return nil, err
	}
	f.sums = s
	fs.opened()
	return s, nil
}

// openSums opens the sums of a data file; nil if there are none and none are to be made. Called with once held.
func (fs *files) openSums(ino Ino, f *file, create bool) (*os.File, error) {
	s, err := os.OpenFile(fs.sumPath(ino), os.O_RDWR, 0)
	if !errors.Is(err, os.ErrNotExist) {
		return s, err
	}
	if f.sumless = !create; f.sumless {
		return nil, nil
	}
	return createFile(fs.sumPath(ino))
}

// borrowSums is openSums for a moment: release closes what was not open. A checkpoint passes more files than may
// stay open.
func (fs *files) borrowSums(ino Ino, f *file, create bool) (s *os.File, release func(), err error) {
	f.once.Lock()
	defer f.once.Unlock()
	if f.sums != nil {
		return f.sums, func() {}, nil
	}
	s, err = fs.openSums(ino, f, create)
	return s, func() { s.Close() }, err
}

func (fs *files) sumPath(ino Ino) string {
	return filepath.Join(fs.sumDir, fmt.Sprintf("%02x", uint64(ino)%256), strconv.FormatUint(uint64(ino), 10))
}

// verify compares blocks with their sums.
func (fs *files) verify(ino Ino, from uint64, data []byte, sums []uint32) error {
	for i, sum := range sums {
		if sum != 0 && sumOf(data[i*sumBlock:(i+1)*sumBlock]) != sum {
			block := from + uint64(i)
			return &damagedError{fs.damage(ino, block), block}
		}
	}
	return nil
}

// guard is called before a write of n bytes at off is logged, with the file's mu. It tells whether the record has
// to be durable before the data is written; if a checkpoint begins in between, changed tells that. A block of which something stays must be what its sum says, or
// the next sum would make the damage good.
func (fs *files) guard(ino Ino, f *file, size, off, n uint64) (wait bool, err error) {
	if n == 0 {
		return false, nil
	}
	from, to := span(off, n)
	_, wait, err = fs.sumsOf(ino, f, from, to)
	if err != nil || !wait {
		return wait, err
	}
	var b [1]byte
	if off%sumBlock != 0 {
		err = fs.read(ino, f, size, from*sumBlock, b[:])
	}
	if end := off + n; err == nil && end%sumBlock != 0 && end < size {
		err = fs.read(ino, f, size, end, b[:])
	}
	return wait, err
}

// renew makes the sums of what had changed when the checkpoint began. h is the data file; nil if there is none. The
// directory is not yet durable.
func (fs *files) renew(ino Ino, f *file, h *os.File) error {
	fs.mu.Lock()
	closing := f.closing
	fs.mu.Unlock()
	if closing.empty() {
		return nil
	}
	s, release, err := fs.borrowSums(ino, f, h != nil && len(closing.single) > 0)
	if err != nil || s == nil {
		return err
	}
	defer release()
	if closing.from != math.MaxUint64 {
		if err := s.Truncate(int64(min(closing.from, maxFileSize) * sumLen)); err != nil {
			return err
		}
	}
	order := slices.Sorted(maps.Keys(closing.single))
	for len(order) > 0 {
		run := 1
		for run < len(order) && run < 1024 && order[run] == order[0]+uint64(run) {
			run++
		}
		raw, err := fs.sumRun(f, h, order[0], run)
		if err != nil {
			return err
		}
		if _, err := s.WriteAt(raw, int64(order[0]*sumLen)); err != nil {
			return err
		}
		order = order[run:]
	}
	return s.Sync()
}

// sumRun reads blocks in a row and sums them. Of those that have changed again the log tells after a crash: who
// changed them has waited for that, and has let mu go since.
func (fs *files) sumRun(f *file, h *os.File, from uint64, n int) ([]byte, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	data, raw := make([]byte, n*sumBlock), make([]byte, n*sumLen)
	if h == nil {
		return raw, nil
	}
	got, err := h.ReadAt(data, int64(from*sumBlock))
	if err != nil && err != io.EOF {
		return nil, err
	}
	for i := range n {
		if i*sumBlock < got {
			binary.BigEndian.PutUint32(raw[i*sumLen:], sumOf(data[i*sumBlock:(i+1)*sumBlock]))
		}
	}
	return raw, nil
}

// believe decides at the start whether the sums are those of the table of an LSN.
func (fs *files) believe(dir string, lsn uint64) error {
	raw, err := os.ReadFile(filepath.Join(dir, sumsName))
	if err == nil && len(raw) == len(sumsMagic)+8 && string(raw[:len(sumsMagic)]) == sumsMagic &&
		binary.BigEndian.Uint64(raw[len(sumsMagic):]) >= lsn {
		return nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.RemoveAll(fs.sumDir)
}

// vouch says that the sums on disk are true up to lsn.
func vouch(dir string, lsn uint64) error {
	return replaceFile(filepath.Join(dir, sumsName), binary.BigEndian.AppendUint64([]byte(sumsMagic), lsn))
}
