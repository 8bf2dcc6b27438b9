package raft

import (
	"slices"
	"sync"
	"time"
)

// gather lets things go together that cost nearly as much alone: an append is a sync of three disks, a request
// and an answer to each master, and a view of the state. The first begins a round at once; those that come
// while it is open wait for its end, but no longer than hold, and make the next. So nothing waits while there
// is little to do, and rounds grow by themselves when there is much. Safe for concurrent use.
type gather[T comparable] struct {
	hold   time.Duration
	most   int             // things in a round
	rounds int             // open at a time
	size   func(T) int     // in bytes
	run    func(round []T) // in a goroutine of its own; the round ends when it returns

	mu      sync.Mutex
	waiting []T
	open    int         // rounds
	began   time.Time   // of the last round
	timer   *time.Timer // for the end of hold, nil if nothing waits for it
}

func (g *gather[T]) add(x T) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting = append(g.waiting, x)
	g.next()
}

// drop takes out what is still waiting. If it reports false, x is in a round.
func (g *gather[T]) drop(x T) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.Index(g.waiting, x)
	if i < 0 {
		return false
	}
	g.waiting = slices.Delete(g.waiting, i, i+1)
	return true
}

// next begins a round if something waits and it is time to. It is called under the lock.
func (g *gather[T]) next() {
	if len(g.waiting) == 0 || g.open >= g.rounds {
		return
	}
	now := time.Now()
	if g.open > 0 {
		if wait := g.hold - now.Sub(g.began); wait > 0 {
			g.later(wait)
			return
		}
	}
	round := g.take()
	g.open++
	g.began = now
	go func() {
		g.run(round)
		g.mu.Lock()
		defer g.mu.Unlock()
		g.open--
		g.next()
	}()
	if len(g.waiting) > 0 {
		g.later(g.hold)
	}
}

// later sees to it that next is called once more.
func (g *gather[T]) later(wait time.Duration) {
	if g.timer != nil {
		return
	}
	g.timer = time.AfterFunc(wait, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.timer = nil
		g.next()
	})
}

// take cuts a round off what waits.
func (g *gather[T]) take() []T {
	n, size := 0, 0
	for n < len(g.waiting) && n < g.most && size < maxBatchBytes {
		size += g.size(g.waiting[n])
		n++
	}
	if n == len(g.waiting) {
		round := g.waiting
		g.waiting = nil // its memory is the round's
		return round
	}
	round := slices.Clone(g.waiting[:n])
	g.waiting = slices.Delete(g.waiting, 0, n) // what was taken is kept by its round alone
	return round
}
