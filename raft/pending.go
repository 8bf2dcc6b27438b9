package raft

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

const (
	// maxPending bounds proposals that wait for their outcome at one place.
	maxPending = 8192
	// maxPendingBytes bounds what they hold.
	maxPendingBytes = 64 << 20
)

// pending bounds proposals under way, in number and in bytes: each takes at least its share. Who finds no room
// waits for it in the order of arrival, so that large ones get theirs. Safe for concurrent use.
type pending struct {
	room  *semaphore.Weighted
	count atomic.Int64
}

func newPending() *pending { return &pending{room: semaphore.NewWeighted(maxPendingBytes)} }

func weight(env envelope) int64 { return int64(max(len(env), maxPendingBytes/maxPending)) }

// enter waits for room until ctx ends. Whoever has entered leaves.
func (p *pending) enter(ctx context.Context, env envelope) error {
	if err := p.room.Acquire(ctx, weight(env)); err != nil {
		return err
	}
	p.count.Add(1)
	return nil
}

func (p *pending) leave(env envelope) {
	p.count.Add(-1)
	p.room.Release(weight(env))
}

// len is how many are under way.
func (p *pending) len() int { return int(p.count.Load()) }
