package rafttest

import (
	"slices"

	"github.com/hashicorp/raft-wal/types"
)

// meta is the log store's metadata and the values on a volume: in reality a file of bbolt, whose changes
// are atomic and durable when they return.
type meta struct{ *volume }

// Load implements types.MetaStore, like the methods below.
func (m meta) Load(string) (types.PersistentState, error) {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	return m.image.state, nil
}

func (m meta) CommitState(s types.PersistentState) error {
	s.Segments = slices.Clone(s.Segments)
	m.note(step{kind: metaSet, state: s})
	return nil
}

func (m meta) GetStable(key []byte) ([]byte, error) {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	return m.values[string(key)], nil
}

func (m meta) SetStable(key, value []byte) error {
	value = slices.Clone(value)
	m.disk.mu.Lock()
	m.values[string(key)] = value
	m.disk.mu.Unlock()
	m.note(step{kind: valueSet, name: string(key), data: value})
	return nil
}

func (m meta) Close() error { return nil }
