// Package autopilot decides who votes in the log. Plan is a pure function of
// what the leader sees; the leader does what it says and asks again.
//
// Wanted as voters are all masters up to three, three of four, and of more an
// odd number, never more than Settings.MaxVoters. Further masters are standbys:
// they follow without a vote. A voter that is dead for a set time is replaced by
// a standby; without one it stays, since a cluster that forgets the dead forgets
// how many make a majority.
package autopilot

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Settings are the operator's choices.
type Settings struct {
	MaxVoters int           // odd, at least 1
	DeadAfter time.Duration // how long a voter must be dead to be replaced
}

// StableFor is how long a standby must have answered before it gets a vote.
const StableFor = time.Second

// Member is part of the log's configuration.
type Member struct {
	ID, Addr string
	Voter    bool
	Runs     bool // it answers; also asked of one that is no master any more
}

// Master is a node that should be a member: the cluster knows it as a master
// that has not left.
type Master struct {
	ID, Addr string    // Addr as the node itself says, "host:port"
	Alive    bool      // gossip or the log hears it
	Since    time.Time // of Alive
	CaughtUp bool      // it has nearly the whole log
	Unfit    bool      // it says that it should not lead
}

// Op is a kind of change.
type Op string

// The changes, each safe by itself.
const (
	Add      Op = "add"      // a member without a vote
	Readdr   Op = "readdr"   // a member's new address
	Promote  Op = "promote"  // give a vote
	Demote   Op = "demote"   // take the vote
	Remove   Op = "remove"   // from the log
	Transfer Op = "transfer" // leadership, to ID
)

// Change is one step. Addr is set for Add, Readdr, Promote and Transfer.
type Change struct {
	Op       Op
	ID, Addr string
	Why      string // for people
}

// Plan says what the leader self should do now, in this order: at most one
// change of voters, which keeps a majority of living voters, and any number of
// others. It is empty when all is as wanted or nothing safe can be done.
func Plan(members []Member, masters []Master, self string, s Settings, now time.Time) []Change {
	v := newView(members, masters, self, s, now)
	plan := v.standbys()
	if c, ok := v.voters(); ok {
		plan = append(plan, c)
	}
	return plan
}

// view is the input, ordered and indexed.
type view struct {
	Settings
	self    string
	now     time.Time
	members []Member // by id
	masters []Master // by id
	health  map[string]Master
	member  map[string]Member
}

func newView(members []Member, masters []Master, self string, s Settings, now time.Time) *view {
	v := &view{Settings: s, self: self, now: now, members: slices.Clone(members), masters: slices.Clone(masters),
		health: map[string]Master{}, member: map[string]Member{}}
	slices.SortFunc(v.members, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(v.masters, func(a, b Master) int { return cmp.Compare(a.ID, b.ID) })
	for _, m := range v.members {
		v.member[m.ID] = m
	}
	for _, m := range v.masters {
		v.health[m.ID] = m
	}
	return v
}

// gone reports whether a member is no master of the cluster any more: it left,
// was removed, or another machine has its address now.
func (v *view) gone(m Member) (why string, gone bool) {
	own, known := v.health[m.ID]
	if !known {
		return "it has left or was replaced", true
	}
	if own.Alive || m.ID == v.self {
		return "", false
	}
	for _, other := range v.masters {
		if other.ID != m.ID && other.Alive && other.Addr == m.Addr && own.Addr == m.Addr {
			return "node " + other.ID + " has its address now", true
		}
	}
	return "", false
}

func (v *view) alive(id string) bool {
	return id == v.self || v.health[id].Alive || v.member[id].Runs
}

// dead reports whether a member has been silent for longer than a restart takes.
func (v *view) dead(id string) bool {
	return !v.alive(id) && v.now.Sub(v.health[id].Since) >= v.DeadAfter
}

// standbys plans what touches no vote.
func (v *view) standbys() []Change {
	var out []Change
	for _, m := range v.members {
		if why, gone := v.gone(m); gone && !m.Voter {
			out = append(out, Change{Op: Remove, ID: m.ID, Why: why})
		}
	}
	for _, m := range v.masters {
		if _, in := v.member[m.ID]; !in && m.Alive && !v.taken(m.Addr, m.ID) {
			out = append(out, Change{Add, m.ID, m.Addr, "it is a master"})
		}
	}
	for _, m := range v.members {
		if n, known := v.health[m.ID]; known && n.Addr != m.Addr && !v.taken(n.Addr, m.ID) {
			out = append(out, Change{Readdr, m.ID, n.Addr, "it was at " + m.Addr})
		}
	}
	return out
}

// taken reports whether another member has the address: the log knows each
// address once, so that one has to move or go first.
func (v *view) taken(addr, id string) bool {
	return slices.ContainsFunc(v.members, func(m Member) bool { return m.Addr == addr && m.ID != id })
}

// voters plans the one change of votes that is most wanted and safe.
func (v *view) voters() (Change, bool) {
	if c, ok := v.dropGone(); ok {
		return c, ok
	}
	have, want := v.count(func(m Member) bool { _, gone := v.gone(m); return m.Voter && !gone }), v.wanted()
	if have > want {
		return v.demote()
	}
	replace := ""
	for _, m := range v.members {
		if m.Voter && v.dead(m.ID) {
			replace = m.ID
		}
	}
	if have == want && replace == "" {
		return Change{}, false
	}
	for _, m := range v.members {
		if h := v.health[m.ID]; !m.Voter && v.ready(h) && m.Addr == h.Addr {
			why := fmt.Sprintf("%d of %d votes are given", have, want)
			if replace != "" {
				why = "it takes the place of " + replace
			}
			return Change{Promote, m.ID, m.Addr, why}, v.safe(m.ID, +1)
		}
	}
	return Change{}, false
}

// ready reports whether a standby may vote.
func (v *view) ready(h Master) bool {
	return h.Alive && h.CaughtUp && !h.Unfit && v.now.Sub(h.Since) >= StableFor
}

// dropGone removes a voter that is no master any more, the dead first. The
// leader cannot remove itself in order: last of all it hands over, and its
// successor does.
func (v *view) dropGone() (Change, bool) {
	var found []Change
	for _, m := range v.members {
		if why, gone := v.gone(m); gone && m.Voter && m.ID != v.self && v.safe(m.ID, -1) {
			found = append(found, Change{Op: Remove, ID: m.ID, Why: why})
		}
	}
	slices.SortStableFunc(found, func(a, b Change) int { return order(v.alive(a.ID), v.alive(b.ID)) })
	if len(found) > 0 {
		return found[0], true
	}
	if _, stays := v.health[v.self]; !stays {
		if to, ok := v.heir(); ok {
			return Change{Transfer, to.ID, to.Addr, "the leader has left"}, true
		}
	}
	return Change{}, false
}

func (v *view) heir() (Member, bool) {
	for _, m := range v.members {
		if h := v.health[m.ID]; m.ID != v.self && m.Voter && h.Alive && h.CaughtUp && !h.Unfit {
			return m, true
		}
	}
	return Member{}, false
}

// demote takes a vote that is one too many: a dead one's, or, if all voters
// live, the last one's.
func (v *view) demote() (Change, bool) {
	for _, m := range v.members {
		if m.Voter && v.dead(m.ID) {
			return Change{Op: Demote, ID: m.ID, Why: "it is dead and others vote in its place"}, v.safe(m.ID, -1)
		}
	}
	last := ""
	for _, m := range v.members {
		if m.Voter && !v.alive(m.ID) {
			return Change{}, false // it may be the one
		}
		if m.Voter && m.ID != v.self && (last == "" || !v.health[last].Unfit || v.health[m.ID].Unfit) {
			last = m.ID
		}
	}
	if last == "" {
		return Change{}, false
	}
	return Change{Op: Demote, ID: last, Why: fmt.Sprintf("%d votes are enough", v.wanted())}, v.safe(last, -1)
}

// wanted is how many votes there should be. Members count until they are dead,
// and dead voters for as long as they have a vote.
func (v *view) wanted() int {
	n := v.count(func(m Member) bool {
		_, gone := v.gone(m)
		return !gone && (m.Voter || !v.dead(m.ID))
	})
	if n > 3 {
		n -= 1 - n%2
	}
	return min(n, v.MaxVoters)
}

// safe reports whether, with one vote more or less, most of the voters live.
func (v *view) safe(id string, change int) bool {
	voters := v.count(func(m Member) bool { return m.Voter }) + change
	living := v.count(func(m Member) bool { return m.Voter && v.alive(m.ID) })
	if v.alive(id) {
		living += change
	}
	return living > voters/2
}

func (v *view) count(ok func(Member) bool) int {
	n := 0
	for _, m := range v.members {
		if ok(m) {
			n++
		}
	}
	return n
}

// order sorts false before true.
func order(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
