package chaos

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Tally is what one kind of client has seen.
type Tally struct {
	Client     string        `json:"client"`
	Requests   int           `json:"requests"`
	Failed     int           `json:"failed"`
	LongestGap time.Duration `json:"longest_gap_ns"` // between two good answers
	Slowest    time.Duration `json:"slowest_ns"`     // of the good ones
	FirstError string        `json:"first_error,omitempty"`
}

func (t *Tally) add(o Tally) {
	t.Client = o.Client
	t.Requests += o.Requests
	t.Failed += o.Failed
	t.LongestGap = max(t.LongestGap, o.LongestGap)
	t.Slowest = max(t.Slowest, o.Slowest)
	if t.FirstError == "" {
		t.FirstError = o.FirstError
	}
}

// crowd counts the requests of all clients. Safe for concurrent use.
type crowd struct {
	mu   sync.Mutex
	seen map[string]*Tally
	good map[string]time.Time // last good answer
}

func newCrowd() *crowd { return &crowd{seen: map[string]*Tally{}, good: map[string]time.Time{}} }

func (c *crowd) count(client string, began time.Time, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	t := c.seen[client]
	if t == nil {
		t = &Tally{Client: client}
		c.seen[client] = t
	}
	if c.good[client].IsZero() {
		c.good[client] = began
	}
	t.Requests++
	t.LongestGap = max(t.LongestGap, now.Sub(c.good[client]))
	if err != nil {
		if t.Failed++; t.FirstError == "" {
			t.FirstError = err.Error()
		}
		return
	}
	t.Slowest = max(t.Slowest, now.Sub(began))
	c.good[client] = now
}

// swap returns what was seen since the last call.
func (c *crowd) swap() (list []Tally) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.seen {
		list = append(list, *t)
	}
	c.seen = map[string]*Tally{}
	slices.SortFunc(list, func(a, b Tally) int {
		if a.Client < b.Client {
			return -1
		}
		return 1
	})
	return list
}

// loop lets a client work until ctx ends. Each request has its time; one that
// has begun is counted.
func (c *crowd) loop(ctx context.Context, client string, each, between time.Duration, do func(ctx context.Context) error) {
	for ctx.Err() == nil {
		began := time.Now()
		try, cancel := context.WithTimeout(context.WithoutCancel(ctx), each)
		err := do(try)
		cancel()
		if err != errSkip {
			c.count(client, began, err)
		}
		pause(ctx, between)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
