package sim

import (
	"context"
	"fmt"
	"time"

	"appliance/discovery"
	"appliance/discovery/consul"
	"appliance/node/model"
	"appliance/raft/command"
)

const (
	locks      = 2
	lockPrefix = "lock/"
	lockTTL    = 2 * time.Second // of sessions; without a lock delay, which would hide mistakes
)

// endSessions ends those that are over while the master leads, as package node does.
func (p *process) endSessions(ctx context.Context) {
	r := &consul.Reaper{Store: p.store, Catalog: discovery.Watch(ctx, p.store, nil), Proposer: proposer{p.core}, Log: p.cluster.log.With("at", p.machine.name)}
	_ = r.Run(ctx) // ends with ctx only
}

// session is a client's Consul session, as far as it knows.
type session struct {
	id    string
	until time.Time // the client counts on it until then: its TTL after the last renewal was asked for
	holds map[string]bool
}

// lock is what a client does with its session: it makes, renews or ends it, takes a lock with it, or
// gives one up. After a change whose outcome it never learned it makes another session.
func (c *client) lock(ctx context.Context, p *process) {
	s := &c.session
	name := fmt.Sprintf("%s%d", lockPrefix, c.rand.IntN(locks))
	switch n := c.rand.IntN(10); {
	case s.id == "" || time.Now().After(s.until):
		*s = session{id: c.value(), holds: map[string]bool{}}
		row := model.Session{ID: s.id, Node: c.cluster.agents()[0].name, TTL: lockTTL, RenewedAt: c.now(p)}
		c.extend(ctx, p, &command.PutSession{Session: row})
	case n < 5:
		c.extend(ctx, p, &command.RenewSession{ID: s.id, At: c.now(p)})
	case n < 8:
		if c.hold(ctx, p, "lock", name) {
			s.holds[name] = true
			c.history.held(name, s.id, s.until)
		}
	case n < 9:
		c.history.released(name, s.id)
		if !c.hold(ctx, p, "unlock", name) {
			s.id = ""
		}
		delete(s.holds, name)
	default:
		for name := range s.holds {
			c.history.released(name, s.id)
		}
		propose(ctx, p.core, &command.DestroySession{ID: s.id, At: c.now(p)})
		s.id = ""
	}
}

// extend makes or renews the session, and what it holds with it.
func (c *client) extend(ctx context.Context, p *process, cmd command.Command) {
	s, asked := &c.session, time.Now()
	if res, err := propose(ctx, p.core, cmd); err != nil || res.Err != nil || p.dead.Load() {
		return // it may still be there
	}
	s.until = asked.Add(lockTTL)
	for name := range s.holds {
		c.history.held(name, s.id, s.until)
	}
}

// hold takes a lock or gives it up, and reports whether that was done for certain.
func (c *client) hold(ctx context.Context, p *process, verb, name string) bool {
	cmd := &command.KVTxn{At: c.now(p), Ops: []command.KVOp{{Verb: verb, Key: name, Session: c.session.id}}}
	res, err := propose(ctx, p.core, cmd)
	var got command.KVTxnResult
	return err == nil && !p.dead.Load() && res.Decode(&got) == nil && len(got.Errors) == 0
}
