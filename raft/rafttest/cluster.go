// Package rafttest runs masters in one process for tests: real TLS, real files, real sockets. Disk is for
// those of package sim: the real log store on files in memory.
package rafttest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"appliance/node/pki"
	"appliance/node/wire"
	"appliance/node/wire/wiretest"
	"appliance/raft"
)

// Member is one master of a test cluster: real TLS, real files, own port.
type Member struct {
	ID, Addr, Dir string
	Keys          *pki.Keychain
	Node          *raft.Node // new at each Start, like the following
	SM            *Journal
	Dialer        *wire.Dialer

	cluster *Cluster
	stop    func(graceful bool) error
	done    <-chan error
}

// Cluster is a set of masters with one CA.
type Cluster struct {
	CA        *wiretest.Cluster
	Members   []*Member
	Authorize raft.Authorize
	Entries   uint64                        // see raft.Config.SnapshotEntries
	Log       *slog.Logger                  // of the nodes; nil is Logger()
	Trailing  uint64                        // see raft.Config.TrailingEntries
	Locate    func(id string) string        // see raft.Config.Locate
	OnStart   func(*Member, *http.ServeMux) // adds handlers

	t testing.TB
}

// Logger is silent unless RAFT_TEST_LOG is set.
func Logger() *slog.Logger {
	if os.Getenv("RAFT_TEST_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return wiretest.Quiet()
}

// New returns a cluster of n masters that are not started.
func New(t testing.TB, n int) *Cluster {
	c := &Cluster{t: t, CA: wiretest.New(t)}
	for range n {
		c.Add()
	}
	return c
}

// Add adds a master that is not started.
func (c *Cluster) Add() *Member {
	return c.AddAs(fmt.Sprintf("m%d", len(c.Members)+1), wiretest.Addr())
}

// AddAs adds a master with an empty directory under an id and address.
func (c *Cluster) AddAs(id, addr string) *Member {
	m := &Member{ID: id, Addr: addr, Dir: c.t.TempDir(), cluster: c}
	m.Keys = c.CA.Keychain(c.t, m.ID, pki.Master)
	c.Members = append(c.Members, m)
	c.t.Cleanup(func() {
		if m.stop != nil {
			m.stop(false)
		}
	})
	return m
}

// Servers returns what Bootstrap wants.
func (c *Cluster) Servers() (out []raft.Server) {
	for _, m := range c.Members {
		out = append(out, raft.Server{ID: m.ID, Addr: m.Addr})
	}
	return out
}

// Start opens the node on its directory, as a process would.
func (m *Member) Start() *Member {
	t := m.cluster.t
	t.Helper()
	ln, err := net.Listen("tcp", m.Addr)
	if err != nil {
		t.Fatal(err)
	}
	srv := wire.NewServer(m.Keys, Logger())
	m.Dialer = wire.NewDialer(m.Keys)
	m.SM = &Journal{}
	dialer, log := m.Dialer, m.cluster.Log
	if log == nil {
		log = Logger()
	}
	m.Node, err = raft.Open(raft.Config{
		ID: m.ID, Addr: m.Addr, Dir: m.Dir, Replica: raft.NewReplica(m.SM), Listener: srv.Listener(wire.Raft),
		Dial:   func(ctx context.Context, addr string) (net.Conn, error) { return dialer.Dial(ctx, addr, wire.Raft) },
		Client: dialer.Client(), Log: log, Authorize: m.cluster.Authorize, SnapshotEntries: m.cluster.Entries, TrailingEntries: m.cluster.Trailing,
		Locate: m.cluster.Locate,
	})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	m.Node.Mount(mux)
	if m.cluster.OnStart != nil {
		m.cluster.OnStart(m, mux)
	}
	srv.HandleHTTP(mux)
	m.run(srv, ln)
	return m
}

func (m *Member) run(srv *wire.Server, ln net.Listener) {
	node, dialer := m.Node, m.Dialer
	nodeCtx, stopNode := context.WithCancel(context.Background())
	portCtx, stopPort := context.WithCancel(context.Background())
	nodeDone, portDone := make(chan error, 2), make(chan error, 1)
	m.done = nodeDone
	go func() {
		err := node.Run(nodeCtx)
		nodeDone <- err // once for Stop, once for Wait
		nodeDone <- err
	}()
	go func() { portDone <- srv.Run(portCtx, ln) }()
	m.stop = func(graceful bool) error {
		m.stop = nil
		if !graceful {
			stopPort() // connections die first, as in a crash
			node.Close()
		}
		stopNode()
		err := <-nodeDone
		stopPort()
		dialer.Close()
		return errors.Join(err, <-portDone)
	}
}

// Stop ends the member: gracefully, or as a crash does. It returns the error of Node.Run.
func (m *Member) Stop(graceful bool) error { return m.stop(graceful) }

// Wait returns the error of Node.Run when that ends by itself.
func (m *Member) Wait() error { return <-m.done }

// Running reports whether the member was started and not stopped.
func (m *Member) Running() bool { return m.stop != nil }

// Up starts all members and bootstraps.
func (c *Cluster) Up() *Cluster {
	c.t.Helper()
	for _, m := range c.Members {
		m.Start()
	}
	if err := c.Members[0].Node.Bootstrap(c.Servers()); err != nil {
		c.t.Fatal(err)
	}
	c.Leader()
	return c
}

// Leader waits for a leader among the running members.
func (c *Cluster) Leader() *Member {
	c.t.Helper()
	var lead *Member
	Eventually(c.t, "a leader", func() bool {
		for _, m := range c.Members {
			if m.Running() && m.Node.IsLeader() {
				lead = m
				return true
			}
		}
		return false
	})
	return lead
}

// Follower returns a running member that does not lead.
func (c *Cluster) Follower() *Member {
	lead := c.Leader()
	for _, m := range c.Members {
		if m != lead && m.Running() {
			return m
		}
	}
	c.t.Fatal("no follower")
	return nil
}

// Eventually polls until ok holds.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("no %s in time", what)
}

// Proposer is a raft.Node or raft.Remote.
type Proposer interface {
	Propose(ctx context.Context, data []byte) (uint64, any, error)
}

// Put proposes one line and fails the test if it can not.
func Put(t testing.TB, p Proposer, line string) uint64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	index, _, err := p.Propose(ctx, []byte(line))
	if err != nil {
		t.Fatalf("propose %q: %v", line, err)
	}
	return index
}
