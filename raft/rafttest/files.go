package rafttest

import (
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"syscall"

	"github.com/hashicorp/raft-wal/types"
)

// step is one change of a disk, as the log store asks for it.
type step struct {
	kind  stepKind
	name  string // of a file or a value
	at    int64
	data  []byte
	state types.PersistentState
	snap  *snapshot
}

type stepKind int

const (
	created  stepKind = iota // a file of len(data) zeros
	written                  // into a file
	synced                   // a file: what was written before will last
	deleted                  // a file, lasting at once
	metaSet                  // the store's own metadata, lasting at once
	valueSet                 // a value, lasting at once
	snapped                  // a snapshot, lasting at once
)

// image is what is on a disk, come what may, and what only may be.
type image struct {
	files    map[string][]byte
	state    types.PersistentState
	values   map[string][]byte
	volatile []step // created and written, not synced
}

func newImage() *image { return &image{files: map[string][]byte{}, values: map[string][]byte{}} }

// redo takes steps as done.
func (m *image) redo(steps []step) {
	for _, s := range steps {
		switch s.kind {
		case created, written:
			m.volatile = append(m.volatile, s)
		case synced:
			m.volatile = slices.DeleteFunc(m.volatile, func(w step) bool {
				if w.name == s.name {
					m.perform(w)
				}
				return w.name == s.name
			})
		case deleted:
			m.volatile = slices.DeleteFunc(m.volatile, func(w step) bool { return w.name == s.name })
			delete(m.files, s.name)
		case metaSet:
			m.state = s.state
		case valueSet:
			m.values[s.name] = s.data
		}
	}
}

func (m *image) perform(s step) {
	if s.kind == created {
		m.files[s.name] = append([]byte(nil), s.data...)
		return
	}
	m.files[s.name] = write(m.files[s.name], s.at, s.data)
}

// sector is the unit in which a disk writes.
const sector = 512

// tear decides about what was not synced: any part of it is there, sector by sector. It tells of how many
// writes a part is lost, and of how many all.
func (m *image) tear(r *rand.Rand) (torn, lost int) {
	for _, s := range m.volatile {
		if s.kind == created {
			if r.IntN(2) == 0 {
				m.perform(s)
			} else {
				lost++
			}
			continue
		}
		if m.files[s.name] == nil {
			lost++
			continue
		}
		kept, gone := false, false
		for len(s.data) > 0 {
			n := min(int64(len(s.data)), sector-s.at%sector)
			if r.IntN(2) == 0 {
				m.files[s.name] = write(m.files[s.name], s.at, s.data[:n])
				kept = true
			} else {
				gone = true
			}
			s.at, s.data = s.at+n, s.data[n:]
		}
		switch {
		case gone && kept:
			torn++
		case gone:
			lost++
		}
	}
	m.volatile = nil
	return torn, lost
}

func write(file []byte, at int64, data []byte) []byte {
	if need := int(at) + len(data); need > len(file) {
		file = append(file, make([]byte, need-len(file))...)
	}
	copy(file[at:], data)
	return file
}

// vfs is the file system of the log store.
type vfs struct{ *volume }

// ListDir implements types.VFS; there is one directory.
func (v vfs) ListDir(string) ([]string, error) {
	v.disk.mu.Lock()
	defer v.disk.mu.Unlock()
	return slices.Sorted(maps.Keys(v.live)), nil
}

// Create implements types.VFS.
func (v vfs) Create(_, name string, size uint64) (types.WritableFile, error) {
	v.disk.mu.Lock()
	defer v.disk.mu.Unlock()
	if v.disk.head == v.volume && v.disk.full != 0 {
		v.disk.did.NoFiles++
		return nil, syscall.ENOSPC
	}
	if v.live[name] != nil {
		return nil, os.ErrExist
	}
	v.live[name] = make([]byte, size)
	v.steps = append(v.steps, step{kind: created, name: name, data: make([]byte, size)})
	return &file{v.volume, name}, nil
}

// Delete implements types.VFS.
func (v vfs) Delete(_, name string) error {
	v.disk.mu.Lock()
	defer v.disk.mu.Unlock()
	if v.live[name] == nil {
		return os.ErrNotExist
	}
	delete(v.live, name)
	v.steps = append(v.steps, step{kind: deleted, name: name})
	return nil
}

// OpenReader implements types.VFS.
func (v vfs) OpenReader(dir, name string) (types.ReadableFile, error) {
	return v.OpenWriter(dir, name)
}

// OpenWriter implements types.VFS.
func (v vfs) OpenWriter(_, name string) (types.WritableFile, error) {
	v.disk.mu.Lock()
	defer v.disk.mu.Unlock()
	if v.live[name] == nil {
		return nil, fmt.Errorf("open %s: %w", name, os.ErrNotExist)
	}
	return &file{v.volume, name}, nil
}

type file struct {
	*volume
	name string
}

// WriteAt implements types.WritableFile, like the methods below.
func (f *file) WriteAt(b []byte, at int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	var err error
	if f.disk.head == f.volume && f.disk.full == NoSpace {
		b, err = b[:f.disk.rand.IntN(len(b)+1)], syscall.ENOSPC
		f.disk.did.NoSpace++
	}
	f.live[f.name] = write(f.live[f.name], at, b)
	f.steps = append(f.steps, step{kind: written, name: f.name, at: at, data: append([]byte(nil), b...)})
	return len(b), err
}

func (f *file) ReadAt(b []byte, at int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	data := f.live[f.name]
	if at >= int64(len(data)) {
		return 0, io.EOF
	}
	n := copy(b, data[at:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) Sync() error {
	f.note(step{kind: synced, name: f.name})
	return nil
}

func (f *file) Close() error { return nil }
