package raft

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
)

// Replica applies the log to a state machine: each entry once, in order, and each proposal once even if
// it is in the log twice. Masters feed it from raft, agents from a feed. Safe for concurrent use.
type Replica struct {
	sm StateMachine

	mu       sync.Mutex // serialises every use of sm
	dedup    *dedup
	term     uint64
	halted   error
	observer Observer

	applied    atomic.Uint64
	markerTerm atomic.Uint64 // term of the last marker applied

	waitMu sync.Mutex
	wait   chan struct{} // closed on the next change; nil if nobody waits
	halt   chan struct{} // closed when halted is set
}

// Observer sees every applied entry. Calls come in order, from within Apply: they must be quick.
type Observer interface {
	// Applied tells of entries; prev is the index applied before the first. The entries must not
	// be changed and may be kept.
	Applied(prev uint64, entries []Entry)
	// Restored tells that a snapshot replaced everything up to index.
	Restored(index uint64)
}

// NewReplica returns a replica of an empty log.
func NewReplica(sm StateMachine) *Replica {
	return &Replica{sm: sm, dedup: newDedup(dedupSize), halt: make(chan struct{})}
}

// Observe sets the observer and returns the applied index from which on it sees entries.
func (r *Replica) Observe(o Observer) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.observer = o
	o.Restored(r.applied.Load())
	return r.applied.Load()
}

// Applied returns the index of the last applied entry.
func (r *Replica) Applied() uint64 { return r.applied.Load() }

// Position returns index and term of the last applied entry.
func (r *Replica) Position() (index, term uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.applied.Load(), r.term
}

// Halted is closed when the replica met an entry that it must not skip; Err tells which.
func (r *Replica) Halted() <-chan struct{} { return r.halt }

// Err returns why the replica halted, or nil.
func (r *Replica) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.halted
}

// Lookup returns the outcome of a proposal that was applied lately.
func (r *Replica) Lookup(id ProposalID) (Outcome, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dedup.find(id)
}

// Apply applies entries with rising indexes. Entries that are applied already are skipped. The caller
// guarantees that none is missing in between.
func (r *Replica) Apply(entries []Entry) []Outcome {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Outcome, len(entries))
	prev := r.applied.Load()
	if len(entries) == 0 || entries[len(entries)-1].Index <= prev {
		return out
	}
	done := 0
	run := func() {
		for i, e := range entries {
			if r.halted != nil {
				out[i] = Outcome{Index: e.Index, Err: r.halted}
				continue
			}
			if e.Index > prev {
				out[i] = r.one(e)
			}
			if r.halted == nil {
				done = i + 1
			}
		}
	}
	if b, ok := r.sm.(Batcher); ok && r.halted == nil {
		b.Batch(entries[len(entries)-1].Index, run)
	} else {
		run()
	}
	if done > 0 && entries[done-1].Index > prev {
		r.advance(prev, entries[:done])
	}
	return out
}

// one applies a single entry under the lock.
func (r *Replica) one(e Entry) Outcome {
	if len(e.Data) == 0 {
		return Outcome{Index: e.Index}
	}
	env, err := parseEnvelope(e.Data)
	if err != nil {
		return r.stop(e, err)
	}
	if env.marker() {
		r.markerTerm.Store(e.Term)
		return Outcome{Index: e.Index}
	}
	if o, ok := r.dedup.find(env.id()); ok {
		return o
	}
	if env.retry() && r.dedup.forgotten(env.floor()) {
		return Outcome{Index: e.Index, Err: fmt.Errorf("%w: the retry came too late to tell whether the first attempt took effect: read the current state before trying again", ErrUnknownOutcome)}
	}
	value := r.sm.Apply(e.Index, e.Term, env.payload())
	if err := isFatal(value); err != nil {
		return r.stop(e, err)
	}
	r.dedup.add(remembered{env.id(), e.Index, value})
	return Outcome{Index: e.Index, Value: value}
}

func (r *Replica) stop(e Entry, err error) Outcome {
	r.halted = fmt.Errorf("%w at index %d: %w", ErrHalted, e.Index, err)
	close(r.halt)
	return Outcome{Index: e.Index, Err: r.halted}
}

// advance makes the new index known.
func (r *Replica) advance(prev uint64, entries []Entry) {
	for len(entries) > 0 && entries[0].Index <= prev {
		entries = entries[1:]
	}
	last := entries[len(entries)-1]
	r.term = last.Term
	r.applied.Store(last.Index)
	if r.observer != nil {
		r.observer.Applied(prev, entries)
	}
	r.wake()
}

func (r *Replica) wake() {
	r.waitMu.Lock()
	defer r.waitMu.Unlock()
	if r.wait != nil {
		close(r.wait)
		r.wait = nil
	}
}

// WaitApplied blocks until the entry at index is applied here, or ctx ends.
func (r *Replica) WaitApplied(ctx context.Context, index uint64) error {
	for r.applied.Load() < index {
		r.waitMu.Lock()
		if r.wait == nil {
			r.wait = make(chan struct{})
		}
		ch := r.wait
		r.waitMu.Unlock()
		if r.applied.Load() >= index {
			return nil
		}
		select {
		case <-ch:
		case <-r.halt:
			return r.Err()
		case <-ctx.Done():
			return fmt.Errorf("wait for log index %d (this node is at %d): %w", index, r.applied.Load(), context.Cause(ctx))
		}
	}
	return nil
}
