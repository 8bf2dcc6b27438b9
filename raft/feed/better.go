package feed

import (
	"bufio"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// lookEvery is how often, at most, a follower looks for a better master.
const lookEvery = 2 * time.Second

var errBehind = errors.New("the master is behind, and another one is not")

// search is for a better master while the one that is followed is behind. Without one the follower stays:
// old news are better than none, and nobody gains from moving between masters that have no leader.
type search struct {
	since time.Time // the master has been behind, zero if it is not
	next  time.Time // not before
	busy  atomic.Bool
	wg    sync.WaitGroup
}

// judge ends the stream from addr with leave when that master has been behind for lagLimit and another one is
// not. It returns at once; the search ends with ctx.
func (f *Follower) judge(ctx context.Context, s *search, addr string, beat frame, leave context.CancelCauseFunc) {
	now := time.Now()
	switch {
	case !beat.behind():
		s.since = time.Time{}
		return
	case s.since.IsZero():
		s.since = now
	}
	if now.Sub(s.since) < lagLimit || now.Before(s.next) || !s.busy.CompareAndSwap(false, true) {
		return
	}
	s.next = now.Add(lookEvery + rand.N(lookEvery/2)) // followers of one master do not all ask at once
	s.wg.Go(func() {
		defer s.busy.Store(false)
		if better := f.better(ctx, addr); better != "" {
			f.mu.Lock()
			f.prefer = better
			f.mu.Unlock()
			leave(errBehind)
		}
	})
}

// better returns the master that is not behind and has applied most, not less than this node; "" if none is.
func (f *Follower) better(ctx context.Context, not string) (addr string) {
	ctx, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	best := f.conf.Replica.Applied()
	for _, m := range f.conf.Masters() {
		if m == not {
			continue
		}
		wg.Go(func() {
			beat, err := f.look(ctx, m)
			mu.Lock()
			defer mu.Unlock()
			if err == nil && !beat.behind() && (beat.nums[0] > best || addr == "" && beat.nums[0] == best) {
				addr, best = m, beat.nums[0]
			}
		})
	}
	wg.Wait()
	return addr
}

// look returns the first heartbeat of a master.
func (f *Follower) look(ctx context.Context, addr string) (frame, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream of a master that does not know look
	body, err := f.request(ctx, addr, "&look=1")
	if err != nil {
		return frame{}, err
	}
	defer body.Close()
	beat, err := readFrame(bufio.NewReader(body))
	if err == nil && beat.kind != kindHeartbeat {
		err = errFrame
	}
	return beat, err
}
