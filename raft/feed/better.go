package feed

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
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
	doubtMost  = 16 * time.Minute // see patience
)

var (
	errBehind = errors.New("the master is behind, and another one is not")
	errLags   = errors.New("another master has had for 2 s what this one has not sent")
)

// search is for a better master while the one that is followed is behind. Without one the follower stays:
// old news are better than none, and nobody gains from moving between masters that have no leader.
type search struct {
	since   time.Time   // the master has been behind, zero if it is not
	next    time.Time   // not before
	doubt   time.Time   // when to compare it with the others; how often that may end a stream, patience says
	loading atomic.Bool // a snapshot is being received
	busy    atomic.Bool
	wg      sync.WaitGroup
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
		other := look(ctx, addr)
		// A snapshot that has begun meanwhile is not thrown away: the next master would send it from its start.
		if other != "" && !s.loading.Load() && f.move(other, why) {
			leave(why)
		}
	})
}

// move notes whom to follow next. It reports false if it is too early to leave a master for that reason.
func (f *Follower) move(other string, why error) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if why == errLags && !f.patience.spend(time.Now()) {
		return false
	}
	f.prefer = other
	return true
}

// ahead returns a master that has what this node does not get within lagLimit; "" if none has.
func (f *Follower) ahead(ctx context.Context, not string) string {
	list := f.others(ctx, not)
	if len(list) == 0 {
		return "" // and nothing is known of how far this node is
	}
	most := slices.MaxFunc(list, func(a, b candidate) int { return cmp.Compare(a.applied, b.applied) })
	ctx, cancel := context.WithTimeout(ctx, lagLimit)
	defer cancel()
	if f.conf.Replica.WaitApplied(ctx, most.applied) == nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.patience.renew()
		return ""
	}
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return ""
	}
	return anyWith(list, f.conf.Replica.Applied()+1)
}

// better returns a master that is not behind and has no less than this node; "" if none is.
func (f *Follower) better(ctx context.Context, not string) string {
	index := f.conf.Replica.Applied() // before the others are asked: this node may go on meanwhile
	return anyWith(f.others(ctx, not), index)
}

// candidate is a master that is not behind by its own word, and how far it was when asked.
type candidate struct {
	addr    string
	applied uint64
}

// anyWith returns any of those that have index; "" if none has. Mostly the leader has applied most: if that one
// were taken, the followers would gather there.
func anyWith(list []candidate, index uint64) string {
	for _, i := range rand.Perm(len(list)) {
		if list[i].applied >= index {
			return list[i].addr
		}
	}
	return ""
}

// others asks all masters but one, and returns those that are not behind.
func (f *Follower) others(ctx context.Context, not string) (list []candidate) {
	ctx, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, m := range f.conf.Masters() {
		if m == not {
			continue
		}
		wg.Go(func() {
			beat, err := f.look(ctx, m)
			mu.Lock()
			defer mu.Unlock()
			if err == nil && !beat.behind() {
				list = append(list, candidate{m, beat.nums[0]})
			}
		})
	}
	wg.Wait()
	return list
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
