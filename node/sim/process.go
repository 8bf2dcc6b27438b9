package sim

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"appliance/discovery/gossip"
	"appliance/node/model"
	"appliance/node/wire"
	"appliance/raft"
	"appliance/raft/command"
	"appliance/raft/feed"
	"appliance/raft/state"
	"appliance/sched"
)

// core is what a client needs of a node: raft.Node or raft.Remote.
type core interface {
	Propose(ctx context.Context, data []byte) (uint64, any, error)
	Linearize(ctx context.Context) error
}

// pausable is a core that stands still while its process is paused, and hears no answer then.
type pausable struct {
	core
	port *Port
}

func (c pausable) Propose(ctx context.Context, data []byte) (uint64, any, error) {
	if err := c.port.awake(ctx); err != nil {
		return 0, nil, err
	}
	index, v, err := c.core.Propose(ctx, data)
	if asleep := c.port.awake(ctx); asleep != nil {
		return 0, nil, fmt.Errorf("%w: %v", raft.ErrUnknownOutcome, asleep)
	}
	return index, v, err
}

func (c pausable) Linearize(ctx context.Context) error {
	if err := c.port.awake(ctx); err != nil {
		return err
	}
	if err := c.core.Linearize(ctx); err != nil {
		return err
	}
	return c.port.awake(ctx)
}

// process is one run of a machine, from start to crash.
type process struct {
	cluster *cluster
	machine *machine
	id      string
	port    *Port
	client  *http.Client

	core    core
	node    *raft.Node // nil on agents
	gossip  *gossip.Gossip
	replica *raft.Replica
	store   *state.Store
	dead    atomic.Bool // what it says no longer counts

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	reap   func() // ends its goroutines; nobody can hear it any more
}

func (c *cluster) newProcess(m *machine) *process {
	p := &process{cluster: c, machine: m, id: m.nodeID(), store: state.New()}
	p.replica = raft.NewReplica(recorded{command.NewMachine(p.store), p.store, c.journal, m.name})
	p.port = c.net.Boot(m.name)
	p.client = newClient(p.port)
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// lead starts a master.
func (p *process) lead() error {
	c, m := p.cluster, p.machine
	log := c.log.With("at", m.name)
	disk, err := m.disk.Open()
	if err != nil {
		return err
	}
	node, err := raft.Open(raft.Config{
		ID: p.id, Addr: m.addr(), Dir: m.name, Storage: disk, Replica: p.replica,
		Listener: p.port.Listen(wire.Raft),
		Dial:     func(ctx context.Context, addr string) (net.Conn, error) { return p.port.Dial(ctx, addr, wire.Raft) },
		Peer:     func(conn net.Conn) string { return c.idAt(conn.(interface{ Peer() string }).Peer()) },
		Client:   p.client, Log: log, SnapshotEntries: snapshotEntries, TrailingEntries: trailingEntries,
	})
	if err != nil {
		return err
	}
	p.node, p.core = node, pausable{node, p.port}
	if err := p.meet(); err != nil {
		return err
	}
	node.OnLeadership(p.schedule)
	node.OnLeadership(p.keepVoters)
	node.OnLeadership(p.endSessions)
	done := make(chan struct{})
	mux := http.NewServeMux()
	node.Mount(mux)
	feed.NewServer(node, log, done).Mount(mux)
	srv := newServer(mux)
	p.wg.Go(func() { srv.Serve(p.port.Listen(wire.HTTP)) })
	p.wg.Go(func() {
		if err := node.Run(p.ctx); err != nil && !p.dead.Load() {
			c.ended(m, p, err)
		}
	})
	p.reap = func() {
		if node.Stats().State == "Shutdown" {
			c.hung.Store(true) // it was ending because of its disk when it was killed
		}
		pause(context.Background(), 3*time.Second) // it gives up leadership, so that raft answers what is in flight
		node.Close()
		p.cancel()
		close(done)
		srv.Close()
		p.wg.Wait()
		p.client.CloseIdleConnections()
	}
	p.wg.Go(p.announce)
	return nil
}

// schedule runs the scheduler while the master leads.
func (p *process) schedule(ctx context.Context) {
	c, m := p.cluster, p.machine
	c.terms.Add(1)
	loop := &sched.Loop{Store: p.store, Proposer: proposer{p.core}, Self: p.id, NewID: c.newID, Log: c.log.With("at", m.name),
		Now: m.clock.now, Liveness: liveness{p.gossip, &m.clock}}
	_ = loop.Run(ctx) // ends with ctx only
}

// follow starts an agent.
func (p *process) follow() error {
	c, m := p.cluster, p.machine
	addrs := func() (out []string) {
		for _, m := range c.masters() {
			out = append(out, m.addr())
		}
		return out
	}
	f, err := feed.NewFollower(feed.Config{Replica: p.replica, Client: p.client, Masters: addrs, Dir: m.dir, Log: c.log.With("at", m.name)})
	if err != nil {
		return err
	}
	remote := raft.NewRemote(p.replica, p.client, addrs)
	p.core = pausable{remote, p.port}
	if err := p.meet(); err != nil {
		return err
	}
	agentDone, err := c.startAgent(p.ctx, m, p, func() bool { return !f.Status().Stale(time.Now()) })
	if err != nil {
		return err
	}
	p.wg.Go(func() {
		if err := f.Run(p.ctx); err != nil {
			c.failed(fmt.Errorf("%s ended by itself: %w", m.name, err))
		}
	})
	file := filepath.Join(m.dir, "feed.snapshot")
	p.reap = func() {
		saved, err := os.ReadFile(file)
		p.cancel()
		p.wg.Wait()
		<-agentDone
		if err == nil { // a crash saves nothing
			os.WriteFile(file, saved, 0o600)
		} else {
			os.Remove(file)
		}
		remote.Close()
		p.client.CloseIdleConnections()
	}
	p.wg.Go(p.announce)
	return nil
}

// meet takes part in gossip.
func (p *process) meet() (err error) {
	role := string(model.RoleAgent)
	if p.machine.master {
		role = string(model.RoleMaster)
	}
	seeds := func() (out []string) {
		for _, m := range p.cluster.machines {
			out = append(out, gossipAddr(m.name))
		}
		return out
	}
	p.gossip, err = gossip.New(gossip.Config{
		ID: p.id, Name: p.machine.name, Role: role, Cluster: "sim", Key: bytes.Repeat([]byte{1}, 32), Bind: ipOf(p.machine.name).String(),
		Port: gossipNumber, Seeds: seeds, Log: p.cluster.log.With("at", p.machine.name), Transport: p.port.Gossip(),
	})
	if err == nil {
		p.wg.Go(func() { _ = p.gossip.Run(p.ctx) }) // ends with ctx only
	}
	return err
}

// announce tells the cluster of the node at its start, as package node does.
func (p *process) announce() {
	for p.ctx.Err() == nil {
		try, cancel := context.WithTimeout(p.ctx, 10*time.Second)
		now := p.machine.clock.now()
		_, err := command.Do(try, proposer{p.core}, &command.UpdateNode{Node: p.machine.node(now), At: now})
		cancel()
		if err == nil {
			return
		}
		pause(p.ctx, 500*time.Millisecond)
	}
}

// node is the machine as the cluster should know it.
func (m *machine) node(now time.Time) model.Node {
	n := model.Node{ID: m.nodeID(), Name: m.name, Role: model.RoleMaster, Addr: ipOf(m.name).String(), Status: model.NodeReady, StartedAt: now, JoinedAt: now, Level: command.Speaks}
	if !m.master {
		n.Role, n.Capacity, n.PortRange = model.RoleAgent, model.Resources{CPUs: 4, Memory: 1000}, [2]int{31000, 31009}
	}
	return n
}
