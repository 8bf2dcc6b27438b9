package raft

import (
	"slices"
	"sync"
	"time"
)

// durations remembers how long the last writes took. Safe for concurrent use.
type durations struct {
	mu   sync.Mutex
	ring [32]duration
	next int
	last time.Time
}

type duration struct {
	end  time.Time
	took time.Duration
}

func (d *durations) add(end time.Time, took time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ring[d.next%len(d.ring)] = duration{end, took}
	d.next++
	d.last = end
}

// newest is when the last write ended.
func (d *durations) newest() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.last
}

// median is that of the writes which ended after from, and of the one that has been going on for running
// (0: none); n is how many these are.
func (d *durations) median(from time.Time, running time.Duration) (m time.Duration, n int) {
	d.mu.Lock()
	var all []time.Duration
	for _, w := range d.ring {
		if w.end.After(from) {
			all = append(all, w.took)
		}
	}
	d.mu.Unlock()
	if running > 0 {
		all = append(all, running)
	}
	if len(all) == 0 {
		return 0, 0
	}
	slices.Sort(all)
	return all[(len(all)-1)/2], len(all)
}
