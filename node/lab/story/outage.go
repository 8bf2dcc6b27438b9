package story

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// outage tries something over and over and measures how long it did not work,
// as somebody outside sees it: from the last success before a fault to the
// first one after it. Tries overlap, so that one that hangs hides nothing.
type outage struct {
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu        sync.Mutex
	successes []time.Time // completion times
	last      error
}

const (
	// tryEvery is the resolution of the measurement.
	tryEvery = 20 * time.Millisecond
	// maxTries bounds the tries under way at once.
	maxTries = 100
)

// watchOutage begins to try. Each try gets the given time.
func watchOutage(ctx context.Context, each time.Duration, try func(ctx context.Context) error) *outage {
	ctx, cancel := context.WithCancel(ctx)
	o := &outage{cancel: cancel}
	slots := make(chan struct{}, maxTries)
	o.running.Go(func() {
		tick := time.NewTicker(tryEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			select {
			case slots <- struct{}{}:
			default:
				continue
			}
			o.running.Go(func() {
				defer func() { <-slots }()
				ctx, cancel := context.WithTimeout(ctx, each)
				defer cancel()
				err := try(ctx)
				o.mu.Lock()
				defer o.mu.Unlock()
				if err == nil {
					o.successes = append(o.successes, time.Now())
				} else if ctx.Err() == nil || o.last == nil {
					o.last = err
				}
			})
		}
	})
	return o
}

// steady waits until it works n times.
func (o *outage) steady(ctx context.Context, n int) error {
	return await(ctx, stepTime, func(context.Context) error {
		o.mu.Lock()
		defer o.mu.Unlock()
		if len(o.successes) < n {
			return fmt.Errorf("it does not work: %w", o.last)
		}
		return nil
	})
}

// after waits until it has worked for calm without a pause as long as that
// since the fault, and returns the longest pause that ended after the fault.
// Calm must be longer than it takes until a fault is noticed.
func (o *outage) after(ctx context.Context, fault time.Time, calm time.Duration) (time.Duration, error) {
	defer func() { o.cancel(); o.running.Wait() }()
	var longest time.Duration
	err := await(ctx, stepTime, func(context.Context) error {
		o.mu.Lock()
		defer o.mu.Unlock()
		var back time.Time // the end of the last long pause
		longest, back = o.longest(fault)
		now := time.Now()
		if n := len(o.successes); n == 0 || now.Sub(o.successes[n-1]) > calm/4 || now.Sub(fault) < calm || now.Sub(back) < calm/2 {
			return fmt.Errorf("it does not work for good: %w", o.last)
		}
		return nil
	})
	return longest, err
}

func (o *outage) longest(fault time.Time) (longest time.Duration, back time.Time) {
	previous := fault
	for _, t := range o.successes {
		if t.After(fault) {
			if gap := t.Sub(previous); gap > longest {
				longest, back = gap, t
			}
		}
		previous = t
	}
	return longest, back
}
