package raft

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// ReadIndex returns an index such that a read of any replica that has applied it sees every write that
// was acknowledged before the call, on any node (linearizable, Raft thesis section 6.4).
func (n *Node) ReadIndex(ctx context.Context) (uint64, error) {
	ctx, cancel := limit(ctx)
	defer cancel()
	return n.reads.do(ctx, func(ctx context.Context) (uint64, error) {
		return retryRead(ctx, n.knowsLeader, func() (uint64, error) { return n.readOnce(ctx, true) })
	})
}

// Linearize blocks until a read of this node's replica is linearizable.
func (n *Node) Linearize(ctx context.Context) error {
	index, err := n.ReadIndex(ctx)
	if err != nil {
		return err
	}
	return n.WaitApplied(ctx, index)
}

func (n *Node) readOnce(ctx context.Context, forward bool) (uint64, error) {
	if n.IsLeader() {
		return n.readHere(ctx)
	}
	id, addr := n.Leader()
	if !forward || addr == "" || id == n.conf.ID {
		return 0, errRetry{cause: ErrNoLeader}
	}
	return n.rpc.readIndex(ctx, addr)
}

// readHere is the protocol on the leader: an entry of this term is committed (the marker), note the
// commit index, prove leadership to a majority, and the term has not changed. All entries above the
// marker reach the state machine, so the commit index can be waited for.
func (n *Node) readHere(ctx context.Context) (uint64, error) {
	term := n.raft.CurrentTerm()
	if n.replica.markerTerm.Load() != term {
		return 0, errRetry{cause: ErrNoLeader}
	}
	index := n.raft.CommitIndex()
	if err := wait(ctx, n.raft.VerifyLeader()); err != nil {
		return 0, errRetry{cause: err}
	}
	if n.raft.CurrentTerm() != term {
		return 0, errRetry{cause: ErrNoLeader}
	}
	return index, nil
}

// retryRead repeats a read, which changes nothing, until ctx ends or nobody has led for too long.
func retryRead(ctx context.Context, led func() bool, once func() (uint64, error)) (uint64, error) {
	wait := leaderless{led: led}
	for {
		index, err := once()
		var again errRetry
		if err == nil || !errors.As(err, &again) {
			return index, err
		}
		sleep(ctx, 10*time.Millisecond)
		if ctx.Err() != nil || wait.over() {
			return 0, fmt.Errorf("%w that can confirm a read (%w): check that a majority of the masters runs, or read stale data", ErrNoLeader, again.cause)
		}
	}
}

// readBatch lets concurrent readers share a confirmation. A reader never joins one that has begun: it
// may have noted the commit index before a write that the reader must see.
type readBatch struct {
	ctx  context.Context // ends with the owner
	mu   sync.Mutex
	next *readCall
	busy bool
}

type readCall struct {
	done  chan struct{}
	index uint64
	err   error
}

func (b *readBatch) do(ctx context.Context, confirm func(context.Context) (uint64, error)) (uint64, error) {
	b.mu.Lock()
	if b.next == nil {
		b.next = &readCall{done: make(chan struct{})}
	}
	call := b.next
	if !b.busy {
		b.busy = true
		go b.run(confirm) // ends when nobody waits, at the latest after defaultWait
	}
	b.mu.Unlock()
	select {
	case <-call.done:
		return call.index, call.err
	case <-ctx.Done():
		return 0, fmt.Errorf("%w that can confirm a read in time: check that a majority of the masters runs, or read stale data", ErrNoLeader)
	}
}

func (b *readBatch) run(confirm func(context.Context) (uint64, error)) {
	for {
		b.mu.Lock()
		call := b.next
		b.next = nil
		if call == nil {
			b.busy = false
			b.mu.Unlock()
			return
		}
		b.mu.Unlock()
		ctx, cancel := context.WithTimeout(b.ctx, defaultWait)
		call.index, call.err = confirm(ctx)
		cancel()
		close(call.done)
	}
}

// Established reports whether this node leads and has applied everything that earlier leaders
// acknowledged.
func (n *Node) Established() bool {
	return n.IsLeader() && n.replica.markerTerm.Load() == n.raft.CurrentTerm()
}
