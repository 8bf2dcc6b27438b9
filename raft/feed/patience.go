package feed

import "time"

// patience spaces out the departures from masters that lag by comparison. A follower that is slow itself, by its
// link or a starved CPU, finds that of every master, and loses with each change what was on its way. Therefore
// each departure makes the time to the next one twice as long, until this node has caught up.
type patience struct {
	left time.Time     // the last departure
	span time.Duration // no other within that, zero for the least
}

// spend reports whether a master may be left now, and notes that it is.
func (p *patience) spend(now time.Time) bool {
	if now.Sub(p.left) < max(p.span, doubtEvery) {
		return false
	}
	p.left, p.span = now, min(max(2*p.span, doubtEvery), doubtMost)
	return true
}

// renew tells that this node has caught up.
func (p *patience) renew() { p.span = 0 }
