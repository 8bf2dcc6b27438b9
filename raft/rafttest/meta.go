package rafttest

import (
	"slices"
	"syscall"

	"github.com/hashicorp/raft-wal/types"
)

// meta is the log store's metadata and the values on a volume: in reality a file of bbolt, whose changes
// are atomic and durable when they return. A full disk refuses them as a whole.
type meta struct{ *volume }

// Load implements types.MetaStore, like the methods below.
func (m meta) Load(string) (types.PersistentState, error) {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	return m.image.state, nil
}

func (m meta) CommitState(s types.PersistentState) error {
	s.Segments = slices.Clone(s.Segments)
	return m.put(step{kind: metaSet, state: s})
}

// put does a change, unless there is no space for it.
func (m meta) put(s step) error {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	if m.disk.head == m.volume && m.disk.full == NoSpace && (s.name != termKey || m.disk.Panics != nil) {
		m.disk.did.NoValues++
		return syscall.ENOSPC
	}
	if s.kind == valueSet {
		m.values[s.name] = s.data
	}
	m.steps = append(m.steps, s)
	return nil
}

func (m meta) GetStable(key []byte) ([]byte, error) {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	return m.values[string(key)], nil
}

func (m meta) SetStable(key, value []byte) error {
	return m.put(step{kind: valueSet, name: string(key), data: slices.Clone(value)})
}

func (m meta) Close() error { return nil }
