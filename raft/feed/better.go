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

const (
	// lookEvery is how often, at most, a follower looks for a better master.
	lookEvery = 2 * time.Second
	// doubtFirst and doubtEvery are when a follower compares its master with the others although that one sees
	// nothing wrong with itself: a slow link, or a log that stands still, is not seen from there.
	doubtFirst = 5 * time.Second
	doubtEvery = 30 * time.Second
)

var (
	errBehind = errors.New("the master is behind, and another one is not")
	errLags   = errors.New("another master has had for 2 s what this one has not sent")
)

// search is for a better master while the one that is followed is behind. Without one the follower stays:
// old news are better than none, and nobody gains from moving between masters that have no leader.
type search struct {
	since time.Time // the master has been behind, zero if it is not
	next  time.Time // not before
	doubt time.Time // when to compare it with the others
	busy  atomic.Bool
	wg    sync.WaitGroup
}

func newSearch(now time.Time) *search {
	return &search{doubt: now.Add(doubtFirst + rand.N(doubtFirst))}
}

// judge ends the stream from addr with leave when that master has been behind for lagLimit, by its own word or by
// comparison, and another one is not. It returns at once; the search ends with ctx.
func (f *Follower) judge(ctx context.Context, s *search, addr string, beat frame, leave context.CancelCauseFunc) {
	now := time.Now()
	look, why := f.ahead, errLags
	switch {
	case !beat.behind():
		if s.since = (time.Time{}); now.Before(s.doubt) || !s.busy.CompareAndSwap(false, true) {
			return
		}
	default:
		if s.since.IsZero() {
			s.since = now
		}
		if now.Sub(s.since) < lagLimit || now.Before(s.next) || !s.busy.CompareAndSwap(false, true) {
			return
		}
		look, why = f.better, errBehind
	}
	// Followers of one master do not all ask at once.
	s.next, s.doubt = now.Add(lookEvery+rand.N(lookEvery/2)), now.Add(doubtEvery+rand.N(doubtEvery/2))
	s.wg.Go(func() {
		defer s.busy.Store(false)
		if other, _ := look(ctx, addr); other != "" {
			f.mu.Lock()
			f.prefer = other
			f.mu.Unlock()
			leave(why)
		}
	})
}

// ahead returns a master that has what this node does not get within lagLimit; "" if none has.
func (f *Follower) ahead(ctx context.Context, not string) (addr string, applied uint64) {
	addr, applied = f.better(ctx, not)
	ctx, cancel := context.WithTimeout(ctx, lagLimit)
	defer cancel()
	if addr == "" || f.conf.Replica.WaitApplied(ctx, applied) == nil || !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return "", 0
	}
	return addr, applied
}

// better returns the master that is not behind and has applied most, not less than this node; "" if none is.
func (f *Follower) better(ctx context.Context, not string) (addr string, applied uint64) {
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
	return addr, best
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
