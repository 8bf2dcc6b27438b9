package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"appliance/node/pki"
	"appliance/node/wire"
	"appliance/raft"
	"appliance/raft/command"
	"appliance/raft/feed"
	"appliance/raft/rafttest"
	"appliance/raft/state"
)

// core is what a client needs of a node: raft.Node or raft.Remote.
type core interface {
	Propose(ctx context.Context, data []byte) (uint64, any, error)
	Linearize(ctx context.Context) error
}

// process is one run of a machine, from start to crash.
type process struct {
	core    core
	node    *raft.Node // nil on followers
	replica *raft.Replica
	store   *state.Store
	dead    atomic.Bool // what it says no longer counts
	reap    func()      // ends its goroutines; nobody can hear it any more
}

// machine is a host with its disk, across processes.
type machine struct {
	name   string
	master bool
	disk   *rafttest.Disk // of masters
	dir    string         // of followers

	mu   sync.Mutex
	proc *process // nil while down
	busy bool     // being started, or an ended process still holds the files
}

func (m *machine) addr() string { return m.name + ":7600" }

func (m *machine) running() *process {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.proc
}

const (
	snapshotEntries = 200
	trailingEntries = 50 // so few that a master that was away needs a snapshot
)

// cluster is all machines.
type cluster struct {
	net      *Network
	machines []*machine // masters first
	log      *slog.Logger
	fault    func(what string) // notes an event
	reaping  sync.WaitGroup
	failed   func(err error)
	hung     atomic.Bool // a process has ended because its disk hung
}

func newCluster(seed uint64, dir string, log *slog.Logger, fault func(string), failed func(error)) *cluster {
	c := &cluster{net: NewNetwork(seed), log: log, fault: fault, failed: failed}
	for i := range 3 {
		c.machines = append(c.machines, &machine{name: fmt.Sprintf("m%d", i+1), master: true, disk: rafttest.NewDisk(seed + uint64(i)<<32)})
	}
	for i := range 2 {
		name := fmt.Sprintf("s%d", i+1)
		c.machines = append(c.machines, &machine{name: name, dir: filepath.Join(dir, name)})
	}
	return c
}

func (c *cluster) masters() []*machine { return c.machines[:3] }

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
	for _, m := range c.machines {
		if err := c.start(m); err != nil {
			return err
		}
		if m.master {
			servers = append(servers, raft.Server{ID: m.name, Addr: m.addr()})
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
	p := &process{store: state.New()}
	p.replica = raft.NewReplica(command.NewMachine(p.store))
	port := c.net.Boot(m.name)
	boot := c.startFollower
	if m.master {
		boot = c.startMaster
	}
	err := boot(m, p, port)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.busy = false
	if err != nil {
		return fmt.Errorf("start %s: %w", m.name, err)
	}
	m.proc = p
	return nil
}

func (c *cluster) startMaster(m *machine, p *process, port *Port) error {
	client := newClient(port)
	log := c.log.With("at", m.name)
	node, err := raft.Open(raft.Config{
		ID: m.name, Addr: m.addr(), Dir: m.name, Storage: m.disk.Open(), Replica: p.replica,
		Listener: port.Listen(wire.Raft),
		Dial:     func(ctx context.Context, addr string) (net.Conn, error) { return port.Dial(ctx, addr, wire.Raft) },
		Client:   client, Log: log, SnapshotEntries: snapshotEntries, TrailingEntries: trailingEntries,
	})
	if err != nil {
		return err
	}
	p.node, p.core = node, node
	done := make(chan struct{})
	mux := http.NewServeMux()
	node.Mount(mux)
	feed.NewServer(node, log, done).Mount(mux)
	srv := newServer(mux)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { srv.Serve(port.Listen(wire.HTTP)) })
	wg.Go(func() {
		if err := node.Run(ctx); err != nil && !p.dead.Load() {
			c.ended(m, p, err)
		}
	})
	p.reap = func() {
		pause(context.Background(), 3*time.Second) // it gives up leadership, so that raft answers what is in flight
		node.Close()
		cancel()
		close(done)
		srv.Close()
		wg.Wait()
		client.CloseIdleConnections()
	}
	return nil
}

// ended acts when a node cannot go on: the process ends and is started again.
func (c *cluster) ended(m *machine, p *process, err error) {
	if !errors.Is(err, raft.ErrDisk) && !errors.Is(err, raft.ErrWedged) {
		c.failed(fmt.Errorf("%s ended by itself: %w", m.name, err))
	}
	c.fault(fmt.Sprintf("%s ends by itself: %v", m.name, err))
	c.hung.Store(true)
	c.reaping.Go(func() {
		if c.crash(m, p, true) {
			pause(context.Background(), time.Second)
			if err := c.start(m); err != nil {
				c.failed(err)
			}
		}
	})
}

func (c *cluster) startFollower(m *machine, p *process, port *Port) error {
	client := newClient(port)
	masters := func() (out []string) {
		for _, m := range c.masters() {
			out = append(out, m.addr())
		}
		return out
	}
	f, err := feed.NewFollower(feed.Config{Replica: p.replica, Client: client, Masters: masters, Dir: m.dir, Log: c.log.With("at", m.name)})
	if err != nil {
		return err
	}
	remote := raft.NewRemote(p.replica, client, masters)
	p.core = remote
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := f.Run(ctx); err != nil {
			c.failed(fmt.Errorf("%s ended by itself: %w", m.name, err))
		}
	}()
	file := filepath.Join(m.dir, "feed.snapshot")
	p.reap = func() {
		saved, err := os.ReadFile(file)
		cancel()
		<-done
		if err == nil { // a crash saves nothing
			os.WriteFile(file, saved, 0o600)
		} else {
			os.Remove(file)
		}
		remote.Close()
		client.CloseIdleConnections()
	}
	return nil
}

// crash ends a process at once; power tells whether its machine stays on. It reports whether p was the
// process of m.
func (c *cluster) crash(m *machine, p *process, power bool) bool {
	m.mu.Lock()
	ours := p != nil && m.proc == p
	if ours {
		m.proc, m.busy = nil, !m.master
		p.dead.Store(true)        // first what it tells clients ends,
		c.net.Stop(m.name, power) // then what it tells peers,
		if m.master {             // then what it remembers
			m.disk.Crash()
		}
	}
	m.mu.Unlock()
	if ours {
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
	for _, m := range c.machines {
		c.crash(m, m.running(), true)
	}
	c.reaping.Wait()
}

// newClient speaks HTTP/2 as the client of package wire does, without TLS.
func newClient(port *Port) *http.Client {
	var h2 http.Protocols
	h2.SetUnencryptedHTTP2(true)
	return &http.Client{Transport: plain{&http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			return port.Dial(ctx, addr, wire.HTTP)
		},
		Protocols: &h2, IdleConnTimeout: 90 * time.Second, DisableCompression: true,
		HTTP2: &http.HTTP2Config{
			MaxReceiveBufferPerStream: 1 << 20, MaxReceiveBufferPerConnection: 3 << 20,
			SendPingTimeout: 400 * time.Millisecond, PingTimeout: 700 * time.Millisecond, WriteByteTimeout: 700 * time.Millisecond,
		},
	}}}
}

// plain sends what is meant for TLS without it.
type plain struct{ *http.Transport }

func (p plain) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Scheme = "http"
	return p.Transport.RoundTrip(r)
}

// newServer serves HTTP/2 and tells handlers who asks, as package wire does.
func newServer(h http.Handler) *http.Server {
	var h2 http.Protocols
	h2.SetUnencryptedHTTP2(true)
	return &http.Server{
		Protocols: &h2, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			name, _, _ := net.SplitHostPort(r.RemoteAddr)
			role := pki.Master
			if name[0] == 's' {
				role = pki.Agent
			}
			peer := wire.Peer{Identity: pki.Identity{Cluster: "sim", ID: name, Name: name, Role: role}, Addr: r.RemoteAddr}
			h.ServeHTTP(w, r.WithContext(wire.WithPeer(r.Context(), peer)))
		}),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: 1024, MaxReceiveBufferPerStream: 1 << 20, MaxReceiveBufferPerConnection: 3 << 20,
			SendPingTimeout: 5 * time.Second,
		},
	}
}
