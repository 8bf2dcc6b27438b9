package sched

import (
	"fmt"
	"slices"
	"time"

	"appliance/node/model"
	"appliance/raft/command"
)

const (
	// DefaultDeadAfter is how long a node must be silent before its tasks are
	// lost. Gossip needs about 2 s to agree on a death, of which one counts
	// already; with this and the start of a replacement a dead agent costs
	// about 5 s, and may cost 7 s.
	DefaultDeadAfter = 3 * time.Second
	// massDeadAfter is used instead if most of the cluster seems to have died
	// at once, or most masters: then it is likely we who are cut off, and
	// replacing everything would be worse than waiting.
	massDeadAfter = 30 * time.Second
	// unmetAfter is how long a leader looks for a node that it never met: gossip
	// asks for those that it misses every 5 s.
	unmetAfter = 10 * time.Second
	// aliveAfter keeps a node that comes and goes from being called ready.
	aliveAfter = time.Second
)

// Liveness is the opinion of gossip. Alive tells whether a node answers and
// since when that is so; a node that was never met is alive since the zero
// time. Changed is closed at the next change of opinion, and may be nil.
type Liveness interface {
	Alive(node string) (alive bool, since time.Time)
	Changed() <-chan struct{}
}

// Meeter is an optional ability of a Liveness: whether a node was ever met. A
// node that a leader of long standing never met counts as dead.
type Meeter interface{ Met(node string) bool }

// judge gives the verdicts on nodes that are due, and when the next one may
// be. started is when this leader took office: older opinions of its own
// gossip are not evidence.
func judge(nodes []*model.Node, l Liveness, self string, started, now time.Time, deadAfter time.Duration) (verdicts []command.Command, next time.Time) {
	at := func(t time.Time) {
		if next.IsZero() || t.Before(next) {
			next = t
		}
	}
	silent := map[string]time.Time{} // ready nodes that do not answer, since
	var ready, readyMasters, silentMasters int
	for _, n := range nodes {
		alive, since, until := answers(n, l, self, started, now)
		if !until.IsZero() {
			at(until)
		}
		switch {
		case n.Status == model.NodeReady:
			ready++
			if n.Role == model.RoleMaster {
				readyMasters++
			}
			if alive {
				continue
			}
			silent[n.ID] = latestUntil(now, since, started, n.StatusSince, n.StartedAt, n.JoinedAt)
			if n.Role == model.RoleMaster {
				silentMasters++
			}
		case n.Status == model.NodeDown && alive && !since.IsZero():
			if due := since.Add(aliveAfter); due.After(now) {
				at(due)
			} else {
				verdicts = append(verdicts, &command.SetNodeStatus{Node: n.ID, Status: model.NodeReady, Why: "it answers again", At: now})
			}
		}
	}
	if len(silent)*2 > ready || silentMasters*2 > readyMasters {
		deadAfter = max(deadAfter, massDeadAfter)
	}
	for _, n := range nodes {
		since, ok := silent[n.ID]
		if !ok {
			continue
		}
		if due := since.Add(deadAfter); due.After(now) {
			at(due)
		} else {
			why := fmt.Sprintf("it has not answered for %s", now.Sub(since).Round(100*time.Millisecond))
			verdicts = append(verdicts, &command.SetNodeStatus{Node: n.ID, Status: model.NodeDown, Why: why, At: now})
		}
	}
	return verdicts, next
}

// answers tells whether a node does, and since when. One that was never met
// has until then to be.
func answers(n *model.Node, l Liveness, self string, started, now time.Time) (alive bool, since, until time.Time) {
	if n.ID == self {
		return true, started, until
	}
	alive, since = l.Alive(n.ID)
	m, ok := l.(Meeter)
	if !ok || !alive || n.Status != model.NodeReady || m.Met(n.ID) {
		return alive, since, until
	}
	known := latestUntil(now, started, n.JoinedAt, n.StartedAt)
	if until = known.Add(unmetAfter); until.After(now) {
		return true, since, until
	}
	return false, known, time.Time{}
}

// latestUntil leaves out what is yet to come: a node whose clock is an hour ahead says that it starts in an
// hour, and must not count as alive until then.
func latestUntil(now time.Time, times ...time.Time) time.Time {
	return latest(slices.DeleteFunc(times, func(t time.Time) bool { return t.After(now) })...)
}

func latest(times ...time.Time) time.Time {
	var max time.Time
	for _, t := range times {
		if t.After(max) {
			max = t
		}
	}
	return max
}
