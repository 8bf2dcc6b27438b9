package raft

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	hraft "github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/types"
)

// The format of a segment of raft-wal 0.4: a header of 32 bytes (magic, version, first index, id, codec),
// then frames of 8 bytes and a payload padded to 8. A commit frame holds the CRC-32C of everything since
// the one before. raft-wal checks the last of them when it opens the end of the log, and no other; we
// check all.
const (
	segHeader   = 32
	segMagic    = 0x58eb6b0d
	frameHead   = 8
	frameEntry  = 1
	frameIndex  = 2
	frameCommit = 3
)

// entryMeta is what verification keeps of an entry.
type entryMeta struct {
	term uint64
	sum  uint32
}

// segment is what reading a segment file brought.
type segment struct {
	entries    []entryMeta // committed, from the base index on
	indexStart uint64      // of the committed index frame, 0 if there is none
	end        int64       // behind the last good commit, 0 if there is none
	dirty      int64       // behind the last byte that is not zero after end, 0 if all are
	bad        string      // why reading ended where bytes follow that are not zero
	servers    []byte      // last configuration entry, encoded
}

// scanSegment reads a segment up to the first byte that is not as it was written. The error is that of
// the file system.
func scanSegment(path string, info types.SegmentInfo) (*segment, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s := &segment{}
	sc := &segScanner{in: bufio.NewReaderSize(f, 1<<20), info: info, out: s}
	if err := sc.run(); err != nil {
		return nil, err
	}
	if s.dirty, err = lastByte(f, s.end); err != nil {
		return nil, err
	}
	if s.dirty > 0 && s.bad == "" {
		s.bad = fmt.Sprintf("unfinished write at byte %d", s.end)
	}
	return s, nil
}

type segScanner struct {
	in   *bufio.Reader
	info types.SegmentInfo
	out  *segment

	at      int64
	crc     uint32
	pending []entryMeta
	index   uint64 // of the pending index frame
	servers []byte
	buf     []byte
}

func (s *segScanner) read(n int) ([]byte, error) {
	if cap(s.buf) < n {
		s.buf = make([]byte, n)
	}
	_, err := io.ReadFull(s.in, s.buf[:n])
	return s.buf[:n], err
}

// run reads batch after batch. What ends it is noted in out.bad.
func (s *segScanner) run() error {
	head, err := s.read(segHeader)
	if ended(err) {
		return nil
	}
	if err != nil {
		return err
	}
	num := func(i int) uint64 { return binary.LittleEndian.Uint64(head[8*i:]) }
	if num(0) != segMagic || num(1) != s.info.BaseIndex || num(2) != s.info.ID || num(3) != s.info.Codec {
		s.out.bad = "its header is not that of this segment"
		return nil
	}
	s.at, s.crc = segHeader, crc32.Checksum(head, castagnoli)
	for {
		more, err := s.frame()
		if ended(err) {
			s.out.bad = fmt.Sprintf("it ends within a record at byte %d", s.at)
			return nil
		}
		if err != nil || !more {
			return err
		}
	}
}

func ended(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

// frame reads one frame. more is false where the good part ends.
func (s *segScanner) frame() (more bool, err error) {
	head, err := s.read(frameHead)
	if err != nil {
		if errors.Is(err, io.EOF) && s.at == s.out.end {
			err = nil // the file ends with a commit
		}
		return false, err
	}
	kind, arg := head[0], binary.LittleEndian.Uint32(head[4:])
	if kind == frameCommit {
		return s.commit(arg)
	}
	if kind != frameEntry && kind != frameIndex {
		if binary.LittleEndian.Uint64(head) != 0 || s.at != s.out.end {
			s.out.bad = fmt.Sprintf("no record at byte %d", s.at)
		}
		return false, nil
	}
	if arg > hugeFrame {
		s.out.bad = fmt.Sprintf("a record of %d bytes at byte %d", arg, s.at)
		return false, nil
	}
	s.crc = crc32.Update(s.crc, castagnoli, head)
	padded := (int(arg) + 7) &^ 7
	body, err := s.read(padded)
	if err != nil {
		return false, err
	}
	s.crc = crc32.Update(s.crc, castagnoli, body)
	if kind == frameIndex {
		s.index = uint64(s.at) + frameHead
	} else if !s.entry(body[:arg]) {
		s.out.bad = fmt.Sprintf("the entry at byte %d cannot be read", s.at)
		return false, nil
	}
	s.at += frameHead + int64(padded)
	return true, nil
}

// hugeFrame bounds a frame: raft-wal refuses larger ones.
const hugeFrame = 64 << 20

// commit takes over what came since the last commit, if its checksum is right.
func (s *segScanner) commit(crc uint32) (more bool, err error) {
	if crc != s.crc {
		s.out.bad = fmt.Sprintf("the checksum of bytes %d to %d does not match", s.out.end, s.at)
		return false, nil
	}
	s.at += frameHead
	s.crc = 0
	s.out.end, s.out.indexStart = s.at, max(s.out.indexStart, s.index)
	s.out.entries = append(s.out.entries, s.pending...)
	s.pending = s.pending[:0]
	if s.servers != nil {
		s.out.servers, s.servers = s.servers, nil
	}
	return s.out.indexStart == 0, nil // nothing follows the index
}

// entry decodes an entry whose checksum may still turn out to be wrong.
func (s *segScanner) entry(body []byte) (ok bool) {
	defer func() { // the codec slices without looking
		if recover() != nil {
			ok = false
		}
	}()
	var l hraft.Log
	if err := (&wal.BinaryCodec{}).Decode(body, &l); err != nil {
		return false
	}
	if want := s.info.BaseIndex + uint64(len(s.out.entries)+len(s.pending)); l.Index != want {
		return false
	}
	s.pending = append(s.pending, entryMeta{l.Term, sumLog(&l)})
	if l.Type == hraft.LogConfiguration {
		s.servers = l.Data
	}
	return true
}

// sumLog is the checksum of what an entry says.
func sumLog(l *hraft.Log) uint32 {
	var head [17]byte
	binary.BigEndian.PutUint64(head[:], l.Index)
	binary.BigEndian.PutUint64(head[8:], l.Term)
	head[16] = byte(l.Type)
	sum := crc32.Checksum(head[:], castagnoli)
	return crc32.Update(crc32.Update(sum, castagnoli, l.Data), castagnoli, l.Extensions)
}

// lastByte returns the offset behind the last byte that is not zero, 0 if there is none from begin on.
func lastByte(f *os.File, begin int64) (int64, error) {
	if _, err := f.Seek(begin, io.SeekStart); err != nil {
		return 0, err
	}
	buf := make([]byte, 1<<20)
	zero := make([]byte, len(buf))
	var last int64
	for at := begin; ; {
		n, err := io.ReadFull(f, buf)
		if string(buf[:n]) != string(zero[:n]) {
			for i := n - 1; i >= 0; i-- {
				if buf[i] != 0 {
					last = at + int64(i) + 1
					break
				}
			}
		}
		at += int64(n)
		if ended(err) {
			return last, nil
		}
		if err != nil {
			return 0, err
		}
	}
}

// wipe writes zeros over the unfinished write behind the good part of the last segment. raft-wal would
// read what is there: an index frame that was never committed makes it refuse to append.
func wipe(path string, begin, end int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	zero := make([]byte, 1<<20)
	for at := begin; at < end; at += int64(len(zero)) {
		if _, err := f.WriteAt(zero[:min(int64(len(zero)), end-at)], at); err != nil {
			return err
		}
	}
	return f.Sync()
}
