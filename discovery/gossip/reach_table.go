package gossip

import (
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// The first byte of a message of ours says what it is. Nodes of a version
// before it ignore all of them.
const (
	tagRow  = 'r' // one row
	tagRows = 's' // several, between two members that compare what they know
	tagBeat = 'b' // "you can hear me": a datagram that is not passed on
)

const (
	// maxExchange bounds what two members exchange: about 64 KiB. Larger
	// clusters rely on the datagrams.
	maxExchange = 64
	// maxRows bounds the table; twice the members that one pool should have.
	maxRows = 10000
	// refreshMin and refreshEach are how often a row is sent although nothing
	// changed: each node takes in at most about 10 KB/s, however many there are.
	refreshMin  = 5 * time.Second
	refreshEach = 100 * time.Millisecond
	// rowMargin is how long after three missed refreshes a row is forgotten.
	rowMargin = 10 * time.Second
	// probeMin and probeEach are how often a node probes and sends a beat: a
	// master of 1,000 nodes answers 100 probes a second.
	probeMin  = time.Second
	probeEach = 10 * time.Millisecond
	// maxSilence is how much of the silence before gossip's verdict on a node
	// counts as part of its absence: gossip itself needs twice that.
	maxSilence = time.Second
)

// reach holds the matrix: the rows of all nodes, by node id.
type reach struct {
	self  string
	size  func() int // members of the cluster
	queue rowQueue

	mu    sync.Mutex
	rows  map[string]Row
	beats map[string]time.Time // last datagram of each sender
	floor uint64               // of the own version
	sent  Row                  // the own row as last sent to all
}

func newReach(self string, size func() int) *reach {
	return &reach{self: self, size: size, rows: map[string]Row{}, beats: map[string]time.Time{}}
}

// refresh is how often every row is sent anew.
func (r *reach) refresh() time.Duration {
	return max(refreshMin, time.Duration(r.size())*refreshEach)
}

// every is how often nodes probe each other.
func (r *reach) every() time.Duration {
	return max(probeMin, time.Duration(r.size())*probeEach)
}

// heardFor is how long a datagram proves that a direction works: three beats
// and a little.
func (r *reach) heardFor() time.Duration { return 7 * r.every() / 2 }

// life is how long a row counts.
func (r *reach) life() time.Duration { return 3*r.refresh() + rowMargin }

// set replaces the own row and sends it to all if others should know now.
func (r *reach) set(links []Link, alerts []Alert, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.rows[r.self]
	row := Row{From: r.self, Version: max(old.Version+1, r.floor, uint64(now.UnixMilli())), At: now, Links: links, Alerts: alerts}
	r.rows[r.self] = row
	if r.sent.At.IsZero() || now.Sub(r.sent.At) >= r.refresh() || !sameNews(row, r.sent) {
		r.sent = row
		r.queue.put(row)
	}
	r.prune(now)
}

// sameNews reports whether two rows tell the same but for figures.
func sameNews(a, b Row) bool {
	return slices.Equal(a.Alerts, b.Alerts) && slices.EqualFunc(a.Links, b.Links, func(x, y Link) bool {
		return x.To == y.To && x.State == y.State && x.Heard == y.Heard
	})
}

func (r *reach) prune(now time.Time) {
	life := r.life()
	for id, row := range r.rows {
		if now.Sub(row.At) > life {
			delete(r.rows, id)
		}
	}
	for id, at := range r.beats {
		if now.Sub(at) > life {
			delete(r.beats, id)
		}
	}
}

// take accepts a row of another node if it is newer than what is here, and
// reports that. An old self makes the own version jump above it.
func (r *reach) take(row Row, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if row.From == r.self {
		if row.Version > r.rows[r.self].Version {
			r.floor = row.Version + 1
		}
		return false
	}
	old, known := r.rows[row.From]
	if known && row.Version <= old.Version || !known && len(r.rows) >= maxRows || now.Sub(row.At) > r.life() {
		return false
	}
	r.rows[row.From] = row
	return true
}

// receive takes a message of another member.
func (r *reach) receive(msg []byte, now time.Time) {
	if len(msg) == 0 {
		return
	}
	switch msg[0] {
	case tagBeat:
		in := reader{b: msg[1:]}
		id := in.id()
		r.mu.Lock()
		defer r.mu.Unlock()
		if !in.bad && len(in.b) == 0 && len(r.beats) < maxRows {
			r.beats[id] = now
		}
	case tagRow:
		row, err := decodeRow(msg[1:], now)
		if err == nil && r.take(row, now) {
			r.queue.put(row)
		}
	}
}

// heard reports whether datagrams of a node arrive.
func (r *reach) heard(id string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, ok := r.beats[id]
	return ok && now.Sub(at) < r.heardFor()
}

// silentSince tells since when a node that gossip declares dead now is missed:
// since the beat that did not come, at most maxSilence ago. One that said
// goodbye, or sends no beats here, is missed from now on.
func (r *reach) silentSince(id string, now time.Time) time.Time {
	every := r.every()
	r.mu.Lock()
	defer r.mu.Unlock()
	last, ok := r.beats[id]
	missed, bound := last.Add(every), now.Add(-maxSilence)
	switch {
	case !ok || missed.After(now):
		return now
	case missed.Before(bound):
		return bound
	}
	return missed
}

// list returns the rows that count, by node id.
func (r *reach) list(now time.Time) []Row {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.prune(now)
	out := make([]Row, 0, len(r.rows))
	for _, row := range r.rows {
		out = append(out, row)
	}
	slices.SortFunc(out, func(a, b Row) int { return strings.Compare(a.From, b.From) })
	return out
}

// exchange is what a member tells another that compares notes: the own row
// and the newest of the others.
func (r *reach) exchange(now time.Time) []byte {
	rows := r.list(now)
	slices.SortStableFunc(rows, func(a, b Row) int {
		if a.From == r.self || b.From == r.self {
			return map[bool]int{true: -1, false: 1}[a.From == r.self]
		}
		return b.At.Compare(a.At)
	})
	return encodeRows(rows[:min(len(rows), maxExchange)], now)
}

func (r *reach) merge(raw []byte, now time.Time) {
	rows, _ := decodeRows(raw, now) // what is readable counts
	for _, row := range rows {
		r.take(row, now)
	}
}

// SetRow tells the cluster of this node's links, the important ones first, and
// of what is wrong with it. Heard is filled in here. Changes of state reach
// all nodes within about a second, figures every few seconds.
func (g *Gossip) SetRow(links []Link, alerts []Alert) {
	now := time.Now()
	links = slices.Clone(links)
	for i := range links {
		links[i].Heard = g.reach.heard(links[i].To, now)
	}
	g.reach.set(links, alerts, now)
}

// Rows returns the reachability matrix as it is known here, by node id.
func (g *Gossip) Rows() []Row { return g.reach.list(time.Now()) }

// ProbeEvery is how often nodes of a cluster of this size probe each other.
func (g *Gossip) ProbeEvery() time.Duration { return g.reach.every() }

// RowAge is how old the row of a node that runs can be: two refreshes missed.
func (g *Gossip) RowAge() time.Duration { return 2*g.reach.refresh() + 2*time.Second }

// Beat sends a datagram to each of the nodes that were met, so that they know
// that they hear this one: also to those that do not answer, since of a link
// that works one way only one side is heard.
func (g *Gossip) Beat(ids []string) {
	msg := appendID([]byte{tagBeat}, g.cfg.ID)
	for _, m := range g.Members() { // not the engine's list: it writes into nodes that it has handed out
		if m.ID != g.cfg.ID && slices.Contains(ids, m.ID) {
			to := memberlist.Address{Addr: net.JoinHostPort(m.Addr, strconv.Itoa(m.Port)), Name: m.ID}
			_ = g.list.SendToAddress(to, msg) // best effort: a lost one is what is looked for
		}
	}
}
