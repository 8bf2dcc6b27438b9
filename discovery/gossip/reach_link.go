package gossip

import (
	"cmp"
	"slices"
	"time"
)

// Probe is the outcome of one call to another node.
type Probe struct {
	Sent  time.Time     // with the monotonic reading
	RTT   time.Duration // 0 if it failed
	Peer  time.Time     // the other's clock when it answered
	State LinkState     // LinkOK, or why it failed
}

const (
	// keepProbes is what median, minimum and offset are taken of: the last
	// eight seconds in a small cluster.
	keepProbes = 8
	// failAfter and mendAfter calls in a row change the state: one lost call is
	// a busy machine, one answered call between lost ones is no working link.
	failAfter = 2
	mendAfter = 2
	// stepOf is how far the wall clock may run away from the monotonic one
	// between two probes; beyond it somebody has set the clock, and what was
	// measured before says nothing about it.
	stepOf = 50 * time.Millisecond
)

// Track follows the link to one node over its probes. It is not safe for
// concurrent use.
type Track struct {
	link  Link
	good  []sample // the last answered probes
	run   int      // answered (positive) or lost (negative) calls in a row
	first bool
}

type sample struct {
	sent   time.Time
	rtt    time.Duration
	offset time.Duration
}

// NewTrack begins to follow the link to a node.
func NewTrack(to string, now time.Time) *Track {
	return &Track{link: Link{To: to, Since: now}, first: true}
}

// Link returns the link as it is now.
func (t *Track) Link() Link { return t.link }

// Note takes a probe into account. The offset is that of NTP (RFC 5905): the
// peer read its clock in the middle of the round trip, give or take half of it.
func (t *Track) Note(p Probe, now time.Time) {
	ok := p.State == LinkOK
	switch {
	case ok && t.run > 0:
		t.run++
	case !ok && t.run < 0:
		t.run--
	default:
		t.run = map[bool]int{true: 1, false: -1}[ok]
	}
	if t.first || t.run >= mendAfter || -t.run >= failAfter {
		t.become(p.State, now)
	}
	t.first = false
	if !ok {
		return
	}
	t.good = slices.DeleteFunc(t.good, func(s sample) bool { return stepped(s.sent, now) })
	mid := p.Sent.Round(0).Add(p.RTT / 2)
	t.good = append(t.good, sample{p.Sent, p.RTT, p.Peer.Round(0).Sub(mid)})
	if len(t.good) > keepProbes {
		t.good = t.good[1:]
	}
	t.measure()
}

func (t *Track) become(s LinkState, now time.Time) {
	wasOK, isOK := t.link.State == LinkOK, s == LinkOK
	if t.link.State == LinkUntried || wasOK != isOK {
		t.link.Since = now
	}
	t.link.State = s
}

// measure takes the offset of the fastest probe, which is the surest.
func (t *Track) measure() {
	byRTT := slices.SortedFunc(slices.Values(t.good), func(a, b sample) int { return cmp.Compare(a.rtt, b.rtt) })
	t.link.Min, t.link.RTT = byRTT[0].rtt, byRTT[len(byRTT)/2].rtt
	t.link.Offset, t.link.Slack = byRTT[0].offset, byRTT[0].rtt/2
}

// stepped reports whether the wall clock was set between two readings of it.
func stepped(then, now time.Time) bool { return Step(then, now).Abs() > stepOf }

// Step is how far the wall clock ran ahead of the monotonic clock between two
// readings of time.Now.
func Step(then, now time.Time) time.Duration {
	return now.Round(0).Sub(then.Round(0)) - now.Sub(then)
}

// ClockError is how far this node's clock is ahead of the median of the others
// that answer, with the uncertainty. ok is false if nobody answers.
func ClockError(links []Link) (ahead, slack time.Duration, ok bool) {
	good := slices.DeleteFunc(slices.Clone(links), func(l Link) bool { return l.State != LinkOK || l.RTT == 0 })
	if len(good) == 0 {
		return 0, 0, false
	}
	slices.SortFunc(good, func(a, b Link) int { return cmp.Compare(a.Offset, b.Offset) })
	mid := good[len(good)/2]
	if len(good)%2 == 0 { // of two in the middle the one that accuses this node less
		if other := good[len(good)/2-1]; other.Offset.Abs() < mid.Offset.Abs() {
			mid = other
		}
	}
	return -mid.Offset, mid.Slack, true
}
