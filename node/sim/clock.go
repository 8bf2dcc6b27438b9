package sim

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"appliance/discovery/gossip"
	"appliance/raft/command"
)

// clock is a machine's wall clock: simulated time and an error.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(c.off()) }

func (c *clock) off() time.Duration { return time.Duration(c.offset.Load()) }

func (c *clock) set(offset time.Duration) { c.offset.Store(int64(offset)) }

// maxOffset is how wrong a clock may be without harm to leases: two of them differ by LeaseSkew at most.
const maxOffset = command.LeaseSkew / 2

// offset draws the error of a clock.
func offset(r *rand.Rand) time.Duration {
	return time.Duration(r.Int64N(int64(2*maxOffset))) - maxOffset
}

// farOffset draws the error of a clock that nobody looks after: a minute to six hours, either way.
func farOffset(r *rand.Rand) time.Duration {
	d := time.Minute + time.Duration(r.Int64N(int64(6*time.Hour)))
	if r.IntN(2) == 0 {
		return -d
	}
	return d
}

// liveness is what gossip thinks, in times of the machine's clock.
type liveness struct {
	*gossip.Gossip
	clock *clock
}

func (l liveness) Alive(node string) (bool, time.Time) {
	alive, since := l.Gossip.Alive(node)
	if !since.IsZero() {
		since = since.Add(l.clock.off())
	}
	return alive, since
}
