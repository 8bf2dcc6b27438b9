package raft

import (
	"sync/atomic"

	hraft "github.com/hashicorp/raft"
)

// lateStable bears writes after the store was closed. hashicorp/raft answers heartbeats in goroutines that
// outlive its shutdown, and panics if it cannot note their term then. Who hears such an answer has won its
// election already, by votes that are stored.
type lateStable struct {
	hraft.StableStore
	closed *atomic.Bool
}

// Set implements hraft.StableStore.
func (s lateStable) Set(key, value []byte) error { return s.bear(s.StableStore.Set(key, value)) }

// SetUint64 implements hraft.StableStore.
func (s lateStable) SetUint64(key []byte, n uint64) error {
	return s.bear(s.StableStore.SetUint64(key, n))
}

func (s lateStable) bear(err error) error {
	if s.closed.Load() {
		return nil
	}
	return err
}
