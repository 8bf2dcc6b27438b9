package rafttest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	hraft "github.com/hashicorp/raft"
)

// snapshot is one in the making or done.
type snapshot struct {
	volume *volume
	meta   hraft.SnapshotMeta
	data   bytes.Buffer
}

func (v *volume) Create(version hraft.SnapshotVersion, index, term uint64, conf hraft.Configuration, confIndex uint64, _ hraft.Transport) (hraft.SnapshotSink, error) {
	id := fmt.Sprintf("%d-%d-%d", term, index, time.Now().UnixNano())
	return &snapshot{volume: v, meta: hraft.SnapshotMeta{
		Version: version, ID: id, Index: index, Term: term, Configuration: conf, ConfigurationIndex: confIndex,
	}}, nil
}

func (s *snapshot) Write(b []byte) (int, error) { return s.data.Write(b) }

func (s *snapshot) ID() string { return s.meta.ID }

func (s *snapshot) Cancel() error { return nil }

// Close makes the snapshot durable as a whole, as a rename does.
func (s *snapshot) Close() error {
	s.meta.Size = int64(s.data.Len())
	return s.volume.durable(func() error {
		v := s.volume
		v.disk.mu.Lock()
		defer v.disk.mu.Unlock()
		if v.disk.head == v && v.disk.full != 0 {
			v.disk.did.NoFiles++
			return syscall.ENOSPC
		}
		v.steps = append(v.steps, step{kind: snapped, snap: s})
		v.snaps = append(v.snaps, s)
		v.snaps = v.snaps[max(0, len(v.snaps)-keepSnapshots):]
		return nil
	})
}

func (v *volume) List() ([]*hraft.SnapshotMeta, error) {
	v.disk.mu.Lock()
	defer v.disk.mu.Unlock()
	var out []*hraft.SnapshotMeta
	for i := len(v.snaps) - 1; i >= 0; i-- {
		meta := v.snaps[i].meta
		out = append(out, &meta)
	}
	return out, nil
}

func (v *volume) Open(id string) (*hraft.SnapshotMeta, io.ReadCloser, error) {
	v.disk.mu.Lock()
	defer v.disk.mu.Unlock()
	for _, s := range v.snaps {
		if s.meta.ID == id {
			meta := s.meta
			return &meta, io.NopCloser(bytes.NewReader(s.data.Bytes())), nil
		}
	}
	return nil, nil, errors.New("no such snapshot")
}
