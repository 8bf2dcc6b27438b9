package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"appliance/node/model"
	"appliance/raft/autopilot"
	"appliance/raft/command"
	"appliance/raft/voters"
)

const (
	founders = 3 // masters that vote from the beginning; the fourth stands by
	electors = 3 // of four masters

	membersEvery = 500 * time.Millisecond
	deadAfter    = 3 * time.Second // until a voter is replaced; runs are short
)

// keepVoters has the autopilot keep the masters as they should be while this one leads.
func (p *process) keepVoters(ctx context.Context) {
	keeper := &voters.Keeper{Members: p.node, Self: p.id, Hears: p.gossip.Answering, Log: p.cluster.log.With("at", p.machine.name),
		Addr: func(n *model.Node) string { return n.Name + ":7600" }}
	for pause(ctx, membersEvery) == nil {
		made := keeper.Look(ctx, p.store.Snapshot(), autopilot.Settings{MaxVoters: 5, DeadAfter: deadAfter})
		p.cluster.moves.Add(int64(len(made)))
	}
}

// upheaval is a change of who is a master. The next begins when the log has taken it: two disks may not be
// lost at once.
type upheaval struct {
	name    string
	leaves  bool // the cluster is told that the master leaves
	rebuilt bool // the machine comes back with an empty disk, as another node
}

var upheavals = []upheaval{
	{name: "wipe a master", rebuilt: true},
	{name: "remove a master", leaves: true, rebuilt: true},
	{name: "stop a master for long"},
}

// rebuild changes who is a master until ctx ends. First of all one is wiped: no run is without that.
func rebuild(ctx context.Context, c *cluster, r *rand.Rand, count func(name string)) {
	u := upheavals[0]
	for ; pause(ctx, time.Duration(500+r.IntN(2000))*time.Millisecond) == nil; u = upheavals[r.IntN(len(upheavals))] {
		m := c.machines[r.IntN(masters)]
		length := time.Duration(r.Int64N(int64(2 * deadAfter)))
		for !c.whole(ctx) {
			if pause(ctx, 200*time.Millisecond) != nil {
				return
			}
		}
		c.fault(fmt.Sprintf("%s: %s for %v", u.name, m.nodeID(), length))
		if u.leaves {
			c.leave(m)
			pause(ctx, length)
		}
		c.crash(m, m.running(), false)
		for u.rebuilt && !c.wipe(m) { // the end of another fault has started it
			pause(context.Background(), 10*time.Millisecond)
			c.crash(m, m.running(), false)
		}
		count(u.name)
		if !u.leaves {
			pause(ctx, length)
		}
		c.restart(m)
		c.fault(fmt.Sprintf("end of %s: %s", u.name, m.nodeID()))
	}
}

// whole reports whether all masters are members for certain: that is committed, and not only in the log of one
// leader, who may be the next to be wiped.
func (c *cluster) whole(ctx context.Context) bool {
	m := c.leader()
	if m == nil || c.misplaced() != "" {
		return false
	}
	p := m.running()
	if p == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	term := p.node.Stats().Term
	_, err := propose(ctx, p.core, &command.RecordEvent{Event: model.Event{Kind: "sim", Text: c.newID()}})
	return err == nil && c.leader() == m && m.running() == p && p.node.Stats().Term == term && c.misplaced() == ""
}

// leave tells the cluster that a master leaves. Whether it hears that does not matter: the machine comes
// back as another node.
func (c *cluster) leave(m *machine) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	propose(ctx, c.any().core, &command.SetNodeStatus{Node: m.nodeID(), Status: model.NodeLeft, Why: "removed", At: m.clock.now()})
}

// wipe gives a machine that is down an empty disk. It is another node from then on, which nobody knows.
// It reports whether that was possible: somebody else may have started it.
func (c *cluster) wipe(m *machine) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.proc != nil || m.busy {
		return false
	}
	m.disk.Wipe()
	m.wiped++
	m.id, m.stranger = fmt.Sprintf("%s-%d", m.name, m.wiped), true
	return true
}

// unknown reports whether the cluster has not admitted the machine as what it is now.
func (m *machine) unknown() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stranger
}

// join admits a machine that nobody knows to the cluster, as its join does before it starts anything. That
// takes until the cluster knows that the former node of its name is gone.
func (c *cluster) join(m *machine) {
	for !c.ending.Load() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		now := m.clock.now()
		node := m.node(now)
		res, err := propose(ctx, c.any().core, &command.RegisterNode{Node: node, At: now})
		cancel()
		if err == nil && res.Err == nil && m.admit(node.ID) {
			c.restart(m)
			return
		}
		pause(context.Background(), 200*time.Millisecond)
	}
}

// admit notes that the cluster knows the node. The answer may be so late that the machine is another one by now.
func (m *machine) admit(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.id == id {
		m.stranger = false
	}
	return m.id == id
}

// misplaced tells what is wrong with the members of the log: each master is one, under its present
// identity, nobody else, and so many vote as should. It is "" only when a leader says so.
func (c *cluster) misplaced() string {
	var p *process
	if m := c.leader(); m != nil {
		p = m.running()
	}
	if p == nil {
		return "nobody leads"
	}
	servers, err := p.node.Servers()
	if err != nil {
		return err.Error()
	}
	votes, ids := 0, map[string]bool{}
	for _, s := range servers {
		if ids[s.ID] = true; s.Voter {
			votes++
		}
	}
	for _, m := range c.masters() {
		if !ids[m.nodeID()] {
			return fmt.Sprintf("%s is no member of %v", m.nodeID(), servers)
		}
	}
	if len(ids) != masters || votes != electors {
		return fmt.Sprintf("the members are %v, want %d of which %d vote", servers, masters, electors)
	}
	return ""
}

// placed checks that the masters are members again, and as many voters as should be, soon after all
// trouble has ended.
func placed(c *cluster, h *history, healed time.Time) bool {
	ctx, cancel := context.WithDeadline(context.Background(), healed.Add(healing))
	defer cancel()
	for {
		why := c.misplaced()
		if why == "" {
			return true
		}
		if pause(ctx, 100*time.Millisecond) != nil {
			h.fail("%v after all trouble has ended %s", healing, why)
			return false
		}
	}
}

// idAt is the node that a host is now.
func (c *cluster) idAt(host string) string {
	for _, m := range c.machines {
		if m.name == host {
			return m.nodeID()
		}
	}
	return ""
}
