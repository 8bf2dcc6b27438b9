package raft

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"appliance/raft/durable"

	hraft "github.com/hashicorp/raft"
)

// Names within the directory of a snapshot. The sum is ours: hashicorp/raft checks the state by a
// checksum in meta.json, and meta.json, which names the voters, by none.
const (
	snapDir   = "snapshots"
	snapMeta  = "meta.json"
	snapState = "state.bin"
	snapSum   = "meta.sum"
)

// snapFile is a snapshot as found on disk.
type snapFile struct {
	dir    string // its directory
	index  uint64
	term   uint64
	conf   hraft.Configuration
	unsum  bool    // intact, and its sum is missing or damaged
	damage *Damage // nil if it is intact
}

// readSnapshots verifies all snapshots, in no order.
func readSnapshots(dir string) ([]snapFile, error) {
	entries, err := os.ReadDir(filepath.Join(dir, snapDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var out []snapFile
	for _, e := range entries {
		if e.IsDir() && !strings.HasSuffix(e.Name(), ".tmp") {
			out = append(out, readSnapshot(filepath.Join(dir, snapDir, e.Name())))
		}
	}
	return out, nil
}

func readSnapshot(dir string) snapFile {
	s := snapFile{dir: dir}
	// The name says term and index, also of one whose meta.json is gone.
	if parts := strings.Split(filepath.Base(dir), "-"); len(parts) == 3 {
		s.term, _ = strconv.ParseUint(parts[0], 10, 64)
		s.index, _ = strconv.ParseUint(parts[1], 10, 64)
	}
	bad := func(file, format string, args ...any) snapFile {
		s.damage = &Damage{filepath.Join(dir, file), fmt.Sprintf(format, args...)}
		return s
	}
	raw, err := os.ReadFile(filepath.Join(dir, snapMeta))
	if err != nil {
		return bad(snapMeta, "%v", cause(err))
	}
	switch sum, err := durable.ReadSealed(filepath.Join(dir, snapSum)); {
	case err != nil:
		s.unsum = true
	case string(sum) != durable.Sum(raw):
		return bad(snapMeta, "its checksum does not match")
	}
	var meta struct {
		hraft.SnapshotMeta
		CRC []byte
	}
	if err := json.Unmarshal(raw, &meta); err != nil {
		return bad(snapMeta, "%v", err)
	}
	if meta.ID != filepath.Base(dir) || meta.Index != s.index || meta.Term != s.term {
		return bad(snapMeta, "it is not of this snapshot")
	}
	s.conf = meta.Configuration
	f, err := os.Open(filepath.Join(dir, snapState))
	if err != nil {
		return bad(snapState, "%v", cause(err))
	}
	defer f.Close()
	crc := crc64.New(crc64.MakeTable(crc64.ECMA))
	if n, err := io.Copy(crc, f); err != nil {
		return bad(snapState, "%v", cause(err))
	} else if n != meta.Size {
		return bad(snapState, "it has %d bytes of %d", n, meta.Size)
	}
	if !bytes.Equal(crc.Sum(nil), meta.CRC) {
		return bad(snapState, "its checksum does not match")
	}
	return s
}

// cause leaves out the path, which stands before it already.
func cause(err error) error {
	var pe *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("it is missing")
	case errors.As(err, &pe):
		return pe.Err
	}
	return err
}

func sealSnapshot(dir string) error {
	raw, err := os.ReadFile(filepath.Join(dir, snapMeta))
	if err != nil {
		return err
	}
	return durable.WriteSealed(filepath.Join(dir, snapSum), []byte(durable.Sum(raw)))
}

// sealedSnaps adds the sum to each snapshot, and notes its index in the tail record.
type sealedSnaps struct {
	hraft.SnapshotStore
	dir  string
	tail *tail
}

// Create implements hraft.SnapshotStore.
func (s sealedSnaps) Create(v hraft.SnapshotVersion, index, term uint64, conf hraft.Configuration, confIndex uint64, t hraft.Transport) (hraft.SnapshotSink, error) {
	sink, err := s.SnapshotStore.Create(v, index, term, conf, confIndex, t)
	if err != nil {
		return nil, err
	}
	return &sealedSink{SnapshotSink: sink, store: s, index: index}, nil
}

type sealedSink struct {
	hraft.SnapshotSink
	store  sealedSnaps
	index  uint64
	closed bool // or cancelled
}

// Cancel implements hraft.SnapshotSink.
func (s *sealedSink) Cancel() error {
	s.closed = true
	return s.SnapshotSink.Cancel()
}

// Close implements hraft.SnapshotSink. It may be called twice.
func (s *sealedSink) Close() error {
	if err := s.SnapshotSink.Close(); err != nil || s.closed {
		return err
	}
	s.closed = true
	if err := sealSnapshot(filepath.Join(s.store.dir, snapDir, s.ID())); err != nil {
		return err
	}
	return s.store.tail.change(true, func(r *tailRecord) { r.snap = max(r.snap, s.index) })
}
