package gossip

import (
	"bytes"
	"fmt"
	"log/slog"
	"time"

	"github.com/hashicorp/memberlist"
)

// delegate hands out this node's meta and carries the rows of the reachability
// matrix. NotifyMsg may not keep its argument, and does not: rows are decoded.
type delegate struct {
	meta  []byte
	reach *reach
}

func (d delegate) NodeMeta(int) []byte  { return d.meta }
func (d delegate) NotifyMsg(msg []byte) { d.reach.receive(msg, time.Now()) }
func (d delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.reach.queue.take(overhead, limit, d.reach.size())
}
func (d delegate) LocalState(bool) []byte              { return d.reach.exchange(time.Now()) }
func (d delegate) MergeRemoteState(raw []byte, _ bool) { d.reach.merge(raw, time.Now()) }

// events receives memberlist's news. Its calls hold memberlist's lock, so they
// only note and return.
type events struct{ g *Gossip }

func (e events) NotifyJoin(n *memberlist.Node)   { e.g.put(n, true) }
func (e events) NotifyUpdate(n *memberlist.Node) { e.g.put(n, true) }
func (e events) NotifyLeave(n *memberlist.Node)  { e.g.put(n, false) }

func (e events) NotifyConflict(existing, other *memberlist.Node) {
	e.g.note(existing.Name, existing.Address(), other.Address())
}

// A restart with a new address looks like a conflict until the old self is
// declared dead, so only one that lasts is reported.
const (
	conflictGrace = 15 * time.Second
	conflictFresh = time.Minute // after this long without news it is over
)

type conflict struct {
	id, addrs   string
	first, last time.Time
	reported    bool
}

func (g *Gossip) note(id, a, b string) {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	c := &g.conflict
	if c.id != id || now.Sub(c.last) > conflictFresh {
		*c = conflict{id: id, first: now}
	}
	c.addrs, c.last = a+" and "+b, now
}

// Conflict tells of two processes that use one node id, nil if there are none.
func (g *Gossip) Conflict() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.conflict.err(time.Now())
}

func (c *conflict) err(now time.Time) error {
	if c.id == "" || c.last.Sub(c.first) < conflictGrace || now.Sub(c.last) > conflictFresh {
		return nil
	}
	return fmt.Errorf("node id %s is used twice, at %s: a data directory was copied; stop one of them, delete its data directory and join it again", c.id, c.addrs)
}

func (g *Gossip) reportConflict(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.conflict.err(now); err != nil && !g.conflict.reported {
		g.conflict.reported = true
		g.cfg.Log.Error("gossip conflict", "err", err)
	}
}

// logWriter passes memberlist's own lines on. They repeat for as long as a
// fault lasts, so they are for debugging; state changes are logged by put.
type logWriter struct{ log *slog.Logger }

func (w logWriter) Write(line []byte) (int, error) {
	w.log.Debug("memberlist", "line", string(bytes.TrimSpace(line)))
	return len(line), nil
}
