package store

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
)

// errTorn says where the valid part of a segment ends.
var errTorn = errors.New("torn record")

type segment struct {
	path  string
	first uint64
}

func segments(dir string) ([]segment, error) {
	names, err := filepath.Glob(filepath.Join(dir, "wal-*"))
	if err != nil {
		return nil, err
	}
	var out []segment
	for _, n := range names {
		first, err := strconv.ParseUint(strings.TrimPrefix(filepath.Base(n), "wal-"), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s is not a log segment: move it away", n)
		}
		out = append(out, segment{n, first})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].first < out[j].first })
	return out, nil
}

// replay calls apply for every record after lsn, in order. A torn tail (the last write before a
// crash) is cut off; damage anywhere else is an error, because records behind it were acknowledged.
func replay(dir string, lsn uint64, apply func(*Record) error) (last uint64, err error) {
	segs, err := segments(dir)
	if err != nil {
		return 0, err
	}
	last = lsn
	for i, s := range segs {
		if i+1 < len(segs) && segs[i+1].first <= lsn+1 {
			continue // wholly in the snapshot
		}
		if s.first > last+1 {
			return 0, fmt.Errorf("log segment %s begins at %d but %d is missing: restore the volume from a replica or a backup", s.path, s.first, last+1)
		}
		end, err := readSegment(s, func(r *Record) error {
			if r.LSN <= last {
				return nil
			}
			if r.LSN != last+1 {
				return errTorn
			}
			last = r.LSN
			return apply(r)
		})
		if errors.Is(err, errTorn) && (i+1 == len(segs) || segs[i+1].first == last+1) {
			err = truncate(s.path, end)
		}
		if err != nil {
			return 0, fmt.Errorf("log segment %s at byte %d: %w", s.path, end, err)
		}
	}
	return last, nil
}

// readSegment returns the offset behind the last good record.
func readSegment(s segment, apply func(*Record) error) (end int64, err error) {
	f, err := os.Open(s.path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 1<<20)
	for {
		body, err := readFrame(r)
		if err == io.EOF {
			return end, nil
		}
		if err != nil {
			return end, err
		}
		rec, err := decodeRecord(body)
		if err != nil {
			return end, err
		}
		if err := apply(rec); err != nil {
			return end, err
		}
		end += int64(frameHead + len(body))
	}
}

func readFrame(r io.Reader) ([]byte, error) {
	var h [frameHead]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		if err == io.ErrUnexpectedEOF {
			err = errTorn
		}
		return nil, err
	}
	n := binary.BigEndian.Uint32(h[:])
	if n == 0 || n > maxRecord {
		return nil, errTorn
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err == io.EOF || err == io.ErrUnexpectedEOF {
		return nil, errTorn
	} else if err != nil {
		return nil, err
	}
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(h[4:]) {
		return nil, errTorn
	}
	return body, nil
}

func truncate(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Sync(), f.Close())
}
