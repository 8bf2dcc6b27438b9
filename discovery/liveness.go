package discovery

import "time"

// Liveness is the gossip's opinion about nodes: a hint that comes seconds
// before the log says so, and may be wrong.
type Liveness interface {
	// Alive tells whether the node with the id answers, and since when that is
	// so. A node that gossip has never met is alive: no evidence is not a reason
	// to withdraw anything.
	Alive(nodeID string) (alive bool, since time.Time)
	// Changed returns a channel that is closed at the next change of opinion.
	Changed() <-chan struct{}
}

// AllAlive is the Liveness of somebody without gossip.
type AllAlive struct{}

// Alive implements Liveness.
func (AllAlive) Alive(string) (bool, time.Time) { return true, time.Time{} }

// Changed implements Liveness; the channel is never closed.
func (AllAlive) Changed() <-chan struct{} { return nil }

// DoubtWindow is the span within which deaths count as one event. When every
// good endpoint of a service is on a node believed dead, those that died
// within this span of the last one are kept: if we are the one who is cut off,
// all nodes seem to die within one detection time (about 2 s), while a node
// that died long before is really gone.
const DoubtWindow = 5 * time.Second
