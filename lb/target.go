package lb

import (
	"sync"
	"sync/atomic"
	"time"
)

// Passive ejection: how long a target that refused a connection is left out. It
// doubles with each failed return, and one request at a time tries the return.
const (
	ejectBase = time.Second
	ejectMax  = 30 * time.Second
	probeHold = time.Second // while one request tries, others stay away
)

// target is a backend's state that outlives tables: requests in flight, health
// as seen by traffic, and pooled connections.
type target struct {
	id, addr, service, release string

	inflight atomic.Int64
	closed   atomic.Bool // draining or gone: begin nothing new
	count    *releaseCount

	until atomic.Int64 // ejected until, Unix nanoseconds; 0 is not ejected
	trial atomic.Bool  // one request is trying the return
	mu    sync.Mutex
	fails int
	idle  []*upstream // newest last
	gone  bool        // left the table: keep no idle connections
}

// begin counts a request in, unless the target is closed. The order (count,
// then look) pairs with Swap (close, then report the count), so that nobody who
// saw zero in flight can be surprised.
func (t *target) begin() bool {
	t.inflight.Add(1)
	if t.closed.Load() {
		t.inflight.Add(-1)
		return false
	}
	return true
}

func (t *target) end() { t.inflight.Add(-1) }

// available reports whether the target may be asked now. At the end of an
// ejection it answers true to one caller, whose attempt decides.
func (t *target) available(now time.Time) bool {
	u := t.until.Load()
	if u == 0 {
		return true
	}
	if now.UnixNano() < u {
		return false
	}
	if !t.until.CompareAndSwap(u, now.Add(probeHold).UnixNano()) {
		return false
	}
	t.trial.Store(true)
	return true
}

// fault records that the target could not be reached, and tells whether this
// is news.
func (t *target) fault(now time.Time) (first bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.UnixNano() < t.until.Load() && !t.trial.Swap(false) {
		return false // of a request that was already under way
	}
	hold := min(ejectBase<<min(t.fails, 10), ejectMax)
	t.fails++
	t.until.Store(now.Add(hold).UnixNano())
	return t.fails == 1
}

// healthy records an answer, and tells whether that ends an ejection.
func (t *target) healthy() (back bool) {
	if t.until.Load() == 0 {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.until.Store(0)
	t.trial.Store(false)
	t.fails = 0
	return true
}

// pool is the set of one service's targets in one table.
type pool struct {
	service  Service
	targets  []*target
	weights  []int
	schedule []int
	next     *atomic.Uint64 // shared by successive tables, so a swap does not restart the round
	none     *releaseCount  // counts requests that met no backend
}

// pick chooses a target that is not in tried: the next of the round, unless
// another one, taken at random, has fewer requests in flight (power of two
// choices). Ejected ones are passed over unless nothing else is left.
func (p *pool) pick(tried []*target, now time.Time, random func(n int) int) *target {
	if len(p.schedule) == 0 {
		return nil
	}
	n := len(p.schedule)
	start := int((p.next.Add(1) - 1) % uint64(n))
	first := p.scan(start, tried, now)
	if first < 0 {
		return p.last(tried)
	}
	if len(p.targets) > 1 && p.targets[first].until.Load() == 0 {
		second := p.schedule[random(n)]
		t := p.targets[second]
		if second != first && t.until.Load() == 0 && !contains(tried, t) &&
			t.inflight.Load()*int64(p.weights[first]) < p.targets[first].inflight.Load()*int64(p.weights[second]) {
			first = second
		}
	}
	return p.targets[first]
}

func (p *pool) scan(start int, tried []*target, now time.Time) int {
	for i := range p.schedule {
		at := p.schedule[(start+i)%len(p.schedule)]
		if t := p.targets[at]; !contains(tried, t) && t.available(now) {
			return at
		}
	}
	return -1
}

// last resorts to the ejected target that is due back first: doubt never
// empties a set.
func (p *pool) last(tried []*target) *target {
	var best *target
	for _, t := range p.targets {
		if !contains(tried, t) && (best == nil || t.until.Load() < best.until.Load()) {
			best = t
		}
	}
	return best
}

func contains(ts []*target, t *target) bool {
	for _, x := range ts {
		if x == t {
			return true
		}
	}
	return false
}
