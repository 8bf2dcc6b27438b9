package node

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"time"

	"appliance/lb/vip"
	"appliance/node/model"
	"appliance/node/wire"
	"appliance/raft/state"
)

// How a node goes on without masters: apps, DNS and ingress from what it last
// knew, the VIP held by an agent, and a clear word to everybody who asks.

const (
	// meetTime is how long after the start a node that gossip has not met may
	// still turn up.
	meetTime = 10 * time.Second
	// understudyAfter is how long all masters must be silent before agents elect
	// a holder of the VIP among themselves. Masters need less to elect theirs.
	understudyAfter = 3 * time.Second
	understudyLook  = 500 * time.Millisecond
	understudyAgain = 5 * time.Second // pause after a failure
	// understudyPriority is below that of every master.
	understudyPriority, understudySpread = 11, 80
	// maxExpired is how long after the end of its certificate a node is taken
	// back without a new token: a machine that was repaired, or a cluster whose
	// masters were away, must come back by itself; a disk from a drawer not.
	maxExpired = 30 * 24 * time.Hour
	// otherSeeds bounds the agents that are asked for gossip while no master
	// answers.
	otherSeeds = 8
)

// answers reports whether a node is there as gossip sees it. One that was never
// met counts for a while after the start only.
func (n *Node) answers(id string) bool {
	return n.alive(id) && (id == n.cfg.ID || n.gossip.Met(id) || time.Since(n.started) < meetTime)
}

// mastersThere counts the masters of the cluster and those that answer.
func (n *Node) mastersThere() (total, there int) {
	for m := range state.Nodes.All(n.store.Snapshot()) {
		if m.Role == model.RoleMaster && m.Status != model.NodeLeft {
			total++
			if n.answers(m.ID) {
				there++
			}
		}
	}
	return total, there
}

// inTouch reports whether this node follows a cluster that can decide: it hears
// a master, and a majority of them is there. A feed alone does not tell, since
// a lone master goes on feeding what it last knew.
func (n *Node) inTouch() bool {
	if !n.core.fresh() {
		return false
	}
	total, there := n.mastersThere()
	return total == 0 || there > total/2
}

// leader is the node id of the leader, "" while none can be known.
func (n *Node) leader() string {
	if n.voter == nil && !n.inTouch() {
		return ""
	}
	return n.core.leader()
}

// lastContact tells for how long this node has been without a leader.
func (n *Node) lastContact() (since time.Duration, away bool) {
	if n.leader() != "" {
		return 0, false
	}
	f, agent := n.core.(*follower)
	switch {
	case !agent:
		since = n.voter.Stats().LastContact
	case !f.heard().IsZero():
		since = time.Since(f.heard())
	default:
		since = time.Since(n.started)
	}
	return max(since, 0), true
}

// otherSeeds are agents to gossip with while no master answers: a node that
// restarts then would else meet nobody. A master has no state at all before it
// has met a majority of the others, which may all have moved. When they have,
// the agents ask in vain where they were: it is for a master to look for them.
func (n *Node) otherSeeds() []string {
	switch total, there := n.mastersThere(); {
	case total == 0:
		return n.masters.agents
	case there > 0 && (n.voter == nil || n.meetsAgent()):
		return nil
	}
	return n.someAgents()
}

func (n *Node) meetsAgent() bool {
	for _, m := range n.gossip.Members() {
		if m.Role == string(model.RoleAgent) && m.Alive {
			return true
		}
	}
	return false
}

// someAgents are gossip addresses of agents as the state has them.
func (n *Node) someAgents() (out []string) {
	for m := range state.Nodes.All(n.store.Snapshot()) {
		if m.Role == model.RoleAgent && m.Status != model.NodeLeft && m.ID != n.cfg.ID && len(out) < otherSeeds {
			out = append(out, net.JoinHostPort(m.Addr, strconv.Itoa(gossipPort)))
		}
	}
	return out
}

// understudy lets an agent that serves ingress hold the cluster's VIP while
// there is no majority of masters: those that are left may have started anew
// and know nothing (see awaitVIP). One that holds the VIP keeps it, since an
// agent's priority is lower.
func (n *Node) understudy(ctx context.Context) error {
	var silent time.Time
	for ctx.Err() == nil {
		total, there := n.mastersThere()
		switch now := time.Now(); {
		case total == 0 || there > total/2:
			silent = time.Time{}
		case silent.IsZero():
			silent = now
		case now.Sub(silent) >= understudyAfter:
			n.standIn(ctx)
			silent = now.Add(understudyAgain) // if it failed
		}
		pause(ctx, understudyLook)
	}
	return nil
}

// standIn takes part in the election until a master is there again.
func (n *Node) standIn(ctx context.Context) {
	runner, err := n.understudyRunner()
	if err != nil {
		n.log.Debug("this node cannot hold the VIP", "err", err)
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- runner.Run(ctx) }()
	n.stand.Store(runner)
	defer n.stand.Store(nil)
	n.log.Info("no majority of masters answers: this node takes part in the election of the VIP's holder", "vip", runner.addr)
	for {
		select {
		case err := <-ended:
			n.log.Info("this node takes no part in the VIP any more", "vip", runner.addr, "err", err)
			return
		case <-time.After(understudyLook):
			if total, there := n.mastersThere(); there > total/2 {
				cancel() // hands over
			}
		}
	}
}

func (n *Node) understudyRunner() (*vipRunner, error) {
	addr, err := netip.ParseAddr(n.cluster().VIP)
	if err != nil {
		return nil, err
	}
	link, prefix, err := linkOf(n.cfg.Advertise, n.cfg.Interface)
	if err != nil {
		return nil, err
	}
	if !prefix.Contains(addr) {
		return nil, model.Errorf(model.CodeInvalid, "%s is not of the network of %s", addr, link)
	}
	ip := net.ParseIP(n.cfg.Advertise)
	return &vipRunner{addr: addr, Instance: &vip.Instance{
		Name: addr.String(), Interface: link, VRID: vrid, Priority: understudyPriority + ip[len(ip)-1]%understudySpread, NoPreempt: true,
		Interval: vipInterval, Addresses: []netip.Prefix{netip.PrefixFrom(addr, prefix.Bits())}, Log: n.log,
	}}, nil
}

// mayRenew decides whether the holder of a certificate gets a new one. What a
// master knows itself is enough while the old one is valid: a cluster without
// a majority must not lose its nodes one by one. One that ran out is renewed
// only when a majority confirms that the node is still a member.
func (a *admission) mayRenew(ctx context.Context, peer wire.Peer, now time.Time) (*model.Node, error) {
	if peer.Expired {
		if now.Sub(peer.NotAfter) > maxExpired {
			return nil, model.Errorf(model.CodeDenied, "the certificate of %s ran out on %s", peer.Name, peer.NotAfter.Format(time.DateOnly)).
				Because("a node is taken back without a token for %d days", int(maxExpired.Hours()/24)).Try("join this machine again with a token")
		}
		if err := a.sync(ctx); err != nil {
			return nil, unavailable(err)
		}
	}
	n := state.Nodes.Get(a.store.Snapshot(), peer.ID)
	if n == nil || n.Status == model.NodeLeft {
		return nil, model.Errorf(model.CodeDenied, "node %s is not of this cluster any more", peer.Name).Try("join this machine again")
	}
	return n, nil
}
