// Package raft is the replicated log of the cluster: propose, read, membership, recovery.
//
// It wraps hashicorp/raft and knows nothing of the commands in the log. A Node is a master, which
// votes and stores the log; a Remote is how an agent proposes and reads. Both replicate into a Replica,
// which applies every entry exactly once, in order, to a StateMachine. Package raft/feed carries the
// applied entries from masters to agents.
package raft

import (
	"errors"
	"fmt"
	"io"
	"time"
)

const (
	// MaxPayload bounds one proposal: a larger entry delays heartbeats behind it.
	MaxPayload = 1<<20 + 4096
	// electionTimeout is also the leader's lease. With it a lost leader is replaced in 0.5 s, see silence.
	electionTimeout = 500 * time.Millisecond
	// lonelyTimeout is when a master stands for election by itself, twice that at most. The longest interval of
	// heartbeats is a fifth of it, and by so much one master hears the last of them before another: it must not
	// be about to stand when the first in turn does, or the vote is split.
	lonelyTimeout = 700 * time.Millisecond
	// commitTimeout is how soon an idle leader tells the others that the last entry is committed.
	commitTimeout = 10 * time.Millisecond
	maxAppend     = 512 // entries in one append and one state transaction
	// defaultWait bounds a call whose context has no deadline.
	defaultWait = 30 * time.Second
	// leaderWait is how long a call waits for somebody to lead: some elections. If nobody does by then
	// it takes more than time, and whoever asked should hear of it.
	leaderWait = 5 * time.Second
)

// What can go wrong. The text of the returned errors says why and what to do.
var (
	// ErrNoLeader says that no leader was reached and that nothing was changed.
	ErrNoLeader = errors.New("the cluster has no leader")
	// ErrUnknownOutcome says that a proposal may or may not become part of the log.
	ErrUnknownOutcome = errors.New("the outcome of the change is unknown")
	// ErrTooLarge says that a proposal exceeds MaxPayload.
	ErrTooLarge = errors.New("the change is too large")
	// ErrDenied says that the leader refused a proposal or a call of this peer.
	ErrDenied = errors.New("refused by the masters")
	// ErrDisk says that the log could not be written.
	ErrDisk = errors.New("cannot write the log")
	// ErrClosed says that the node was stopped.
	ErrClosed = errors.New("this node has stopped")
	// ErrHalted says that the node met an entry that it must not skip.
	ErrHalted = errors.New("this node stopped applying the log")
	// ErrWedged says that a leadership transfer left the leader unable to accept changes; the process
	// has to be restarted (hashicorp/raft issue 696).
	ErrWedged = errors.New("leadership transfer did not end")
)

// StateMachine is what the log is about. Calls never overlap.
type StateMachine interface {
	// Apply applies one committed proposal and returns its result, which must be the same on every
	// node. An error that has a method Fatal() bool returning true means that the entry cannot be
	// understood: the node stops rather than diverge. Any other value, errors included, goes back
	// to the proposer. Results are kept a while: they must be small and not change.
	Apply(index, term uint64, data []byte) any
	// Snapshot returns a view as of the last Apply, cheaply; it is written concurrently with later
	// calls of Apply. If it has a method Release(), that is called when it is no longer needed.
	Snapshot() (io.WriterTo, error)
	// Restore replaces the state. It must change nothing if the stream is cut short.
	Restore(r io.Reader) error
}

// Batcher is an optional part of a StateMachine: Batch calls apply once, which calls Apply several
// times, and then makes all of it visible at once, as of index.
type Batcher interface {
	Batch(index uint64, apply func())
}

// ResultCodec is an optional part of a StateMachine: it carries results to other nodes and through
// snapshots. Without it nil, []byte, string, errors (as text) and JSON (json.RawMessage) come back.
type ResultCodec interface {
	EncodeResult(any) ([]byte, error)
	DecodeResult([]byte) (any, error)
}

// Longish is an optional part of a result. Tens of thousands of results are remembered for retries, in memory
// and in snapshots, so that one that is too long for it gives another to be kept in its place: that it took
// effect, but that the answer is gone.
type Longish interface {
	Brief() any // what is kept in its place, nil if it is short enough itself
	Gone() bool // whether this is such a brief answer
}

// Entry is one entry of the log as it is applied. Data is empty for entries of raft's own.
type Entry struct {
	Index, Term uint64
	Data        []byte
}

// Outcome is what became of a proposal. Index is that of the entry that took effect.
type Outcome struct {
	Index uint64
	Value any
	Err   error
}

func isFatal(v any) error {
	err, ok := v.(error)
	if !ok {
		return nil
	}
	var f interface{ Fatal() bool }
	if errors.As(err, &f) && f.Fatal() {
		return fmt.Errorf("%w: %w", ErrHalted, err)
	}
	return nil
}
