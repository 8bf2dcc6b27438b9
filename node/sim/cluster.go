package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"appliance/node/runtime/fake"
	"appliance/raft"
	"appliance/raft/rafttest"
)

// machine is a host with its disk, across processes.
type machine struct {
	name   string
	master bool
	disk   *rafttest.Disk // of masters
	dir    string         // of agents
	engine *fake.Engine   // of agents
	clock  clock

	mu       sync.Mutex
	id       string   // of the node that the machine is; another one after it was wiped
	wiped    int      // how often
	stranger bool     // the cluster has not admitted it yet
	proc     *process // nil while down
	busy     bool     // being started, or an ended process still holds the files
	since    time.Time
}

func (m *machine) addr() string { return m.name + ":7600" }

func (m *machine) nodeID() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.id
}

func (m *machine) running() *process {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.proc
}

const (
	masters = 4
	agents  = 3

	snapshotEntries = 200
	trailingEntries = 50 // so few that a master that was away needs a snapshot
)

// cluster is all machines.
type cluster struct {
	seed     uint64
	net      *Network
	machines []*machine // masters first
	journal  *journal
	log      *slog.Logger
	fault    func(what string) // notes an event
	reaping  sync.WaitGroup
	coming   sync.WaitGroup // machines that will start again by themselves
	failed   func(err error)
	hung     atomic.Bool // a process has ended because of its disk, or was about to when it was killed
	ids      atomic.Int64
	ending   atomic.Bool  // nobody starts again
	moves    atomic.Int64 // changes of the members of the log
	terms    atomic.Int64 // times that a master began to lead
	panics   atomic.Int64 // processes that could not store their term
	did      *effects
	astray   *machine // whose clock is far off; nil: nobody's
}

func newCluster(seed uint64, dir string, log *slog.Logger, fault func(string), fail func(string, ...any)) *cluster {
	c := &cluster{seed: seed, net: NewNetwork(seed), log: log, fault: fault, journal: newJournal(fail), failed: func(err error) { fail("%v", err) }}
	c.did = c.net.did
	for i := range masters {
		name := fmt.Sprintf("m%d", i+1)
		c.machines = append(c.machines, &machine{name: name, id: name, master: true, disk: rafttest.NewDisk(seed + uint64(i)<<32)})
	}
	for i := range agents {
		name := fmt.Sprintf("s%d", i+1)
		c.machines = append(c.machines, &machine{name: name, id: name, dir: filepath.Join(dir, name), engine: newEngine()})
	}
	r := rand.New(rand.NewPCG(seed, 6))
	for _, m := range c.machines {
		m.clock.set(offset(r))
	}
	if r.IntN(2) == 0 {
		c.astray = c.machines[r.IntN(len(c.machines))]
		c.astray.clock.set(farOffset(r))
	}
	for _, m := range c.masters() {
		m.disk.Panics = func() { c.panicked(m) }
	}
	return c
}

func (c *cluster) masters() []*machine { return c.machines[:masters] }

func (c *cluster) agents() []*machine { return c.machines[masters:] }

func (c *cluster) newID() string { return fmt.Sprintf("%06x", c.ids.Add(1)) }

// leader returns the master that leads as far as it knows, nil if there is none.
func (c *cluster) leader() *machine {
	for _, m := range c.masters() {
		if p := m.running(); p != nil && p.node.IsLeader() {
			return m
		}
	}
	return nil
}

// up starts all machines and makes the masters a cluster.
func (c *cluster) up() error {
	var servers []raft.Server
	for i, m := range c.machines {
		if err := c.start(m); err != nil {
			return err
		}
		if i < founders {
			servers = append(servers, raft.Server{ID: m.id, Addr: m.addr()})
		}
	}
	return c.machines[0].running().node.Bootstrap(servers)
}

// start runs a machine that is down.
func (c *cluster) start(m *machine) error {
	m.mu.Lock()
	if m.proc != nil || m.busy {
		m.mu.Unlock()
		return nil
	}
	m.busy = true // no lock is held while simulated time passes: who waits for one stops the clock
	m.mu.Unlock()
	p := c.newProcess(m)
	boot := p.follow
	if m.master {
		boot = p.lead
	}
	err := boot()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.busy = false
	if err != nil {
		return fmt.Errorf("start %s: %w", m.name, err)
	}
	m.proc, m.since = p, time.Now()
	return nil
}

// ended acts when a node cannot go on: the process ends and is started again.
func (c *cluster) ended(m *machine, p *process, err error) {
	if !errors.Is(err, raft.ErrDisk) && !errors.Is(err, raft.ErrWedged) && !errors.Is(err, raft.ErrLostEnd) {
		c.failed(fmt.Errorf("%s ended by itself: %w", m.name, err))
	}
	c.fault(fmt.Sprintf("%s ends by itself: %v", m.name, err))
	c.hung.Store(true)
	c.again(m, p)
}

// again ends a process and starts the next, as the init system does; not while the machine is paused.
func (c *cluster) again(m *machine, p *process) {
	c.coming.Go(func() {
		p.port.awake(context.Background())
		if c.crash(m, p, true) {
			pause(context.Background(), time.Second)
			c.restart(m)
		}
	})
}

// panicked ends a process as hashicorp/raft does whose term could not be stored.
func (c *cluster) panicked(m *machine) {
	if p := m.running(); p != nil {
		c.fault(m.name + " panics: there is no space for its term")
		c.panics.Add(1)
		c.again(m, p)
	}
}

// setClock sets a machine's clock.
func (c *cluster) setClock(m *machine, offset time.Duration) {
	if m.clock.off() != offset {
		c.did.add(jumped)
	}
	m.clock.set(offset)
}

// freeze pauses a machine, or ends that: its links, its disk, and what its clients and loops do.
func (c *cluster) freeze(m *machine, on bool) {
	if m.disk != nil {
		m.disk.Pause(on)
	}
	c.net.Pause(m.name, on)
}

// crash ends a process at once; power tells whether its machine stays on. It reports whether p was the
// process of m.
func (c *cluster) crash(m *machine, p *process, power bool) bool {
	m.mu.Lock()
	ours := p != nil && m.proc == p
	if ours {
		m.proc, m.busy, m.since = nil, !m.master, time.Now()
		p.dead.Store(true)        // first what it tells clients ends,
		c.net.Stop(m.name, power) // then what it tells peers,
		if m.master {             // then what it remembers
			m.disk.Crash()
		}
	}
	m.mu.Unlock()
	if ours {
		c.did.add(map[bool]effect{true: killed, false: powerless}[power])
		if !power && m.engine != nil {
			m.engine.Reboot()
		}
		c.reaping.Go(func() {
			p.reap()
			if !m.master {
				m.mu.Lock()
				m.busy = false
				m.mu.Unlock()
			}
		})
	}
	return ours
}

// stop ends everything.
func (c *cluster) stop() {
	c.ending.Store(true)
	c.coming.Wait()
	for _, m := range c.machines {
		c.crash(m, m.running(), true)
	}
	c.reaping.Wait()
	pause(context.Background(), 10*time.Second) // memberlist ends its last probes after it was closed
	for _, m := range c.agents() {
		m.engine.Close()
	}
}
