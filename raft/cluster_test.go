package raft_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"appliance/node/pki"
	"appliance/node/wire"
	"appliance/node/wire/wiretest"
	"appliance/raft"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// journal is a state machine that keeps every payload in order.
type journal struct {
	mu    sync.Mutex
	Lines []string
}

func (j *journal) Apply(index, _ uint64, data []byte) any {
	if bytes.Equal(data, []byte("unknown")) {
		return raft.Fatal(errors.New("entry of kind 99 is not known: run a newer version"))
	}
	if bytes.Equal(data, []byte("refuse")) {
		return errors.New("refused by the state")
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.Lines = append(j.Lines, string(data))
	return fmt.Sprint("line ", len(j.Lines))
}

func (j *journal) lines() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]string(nil), j.Lines...)
}

type jsonWriter struct{ v any }

func (w jsonWriter) WriteTo(out io.Writer) (int64, error) {
	b, err := json.Marshal(w.v)
	if err != nil {
		return 0, err
	}
	n, err := out.Write(b)
	return int64(n), err
}

func (j *journal) Snapshot() (io.WriterTo, error) { return jsonWriter{j.lines()}, nil }

func (j *journal) Restore(r io.Reader) error {
	var lines []string
	if err := json.NewDecoder(r).Decode(&lines); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.Lines = lines
	return nil
}

// member is one master of a test cluster: real TLS, real files, own port.
type member struct {
	id, addr, dir string
	keys          *pki.Keychain
	cluster       *cluster
	node          *raft.Node
	sm            *journal
	dialer        *wire.Dialer
	stop          func(graceful bool) error
}

type cluster struct {
	t         testing.TB
	ca        *wiretest.Cluster
	members   []*member
	authorize raft.Authorize
	entries   uint64
}

func logger() *slog.Logger {
	if os.Getenv("RAFT_TEST_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return wiretest.Quiet()
}

func newCluster(t testing.TB, n int) *cluster {
	c := &cluster{t: t, ca: wiretest.New(t)}
	for range n {
		c.add()
	}
	return c
}

func (c *cluster) add() *member {
	ln := wiretest.Listen(c.t)
	m := &member{id: fmt.Sprintf("m%d", len(c.members)+1), addr: ln.Addr().String(), dir: c.t.TempDir(), cluster: c}
	ln.Close()
	m.keys = c.ca.Keychain(c.t, m.id, pki.Master)
	c.members = append(c.members, m)
	c.t.Cleanup(func() {
		if m.stop != nil {
			m.stop(false)
		}
	})
	return m
}

func (c *cluster) servers() (out []raft.Server) {
	for _, m := range c.members {
		out = append(out, raft.Server{ID: m.id, Addr: m.addr})
	}
	return out
}

// start opens the node on its directory, as a process would.
func (m *member) start() *member {
	t := m.cluster.t
	t.Helper()
	ln, err := net.Listen("tcp", m.addr)
	if err != nil {
		t.Fatal(err)
	}
	srv := wire.NewServer(m.keys, logger())
	m.dialer = wire.NewDialer(m.keys)
	m.sm = &journal{}
	dialer := m.dialer
	m.node, err = raft.Open(raft.Config{
		ID: m.id, Addr: m.addr, Dir: m.dir, Replica: raft.NewReplica(m.sm), Listener: srv.Listener(wire.Raft),
		Dial:   func(ctx context.Context, addr string) (net.Conn, error) { return dialer.Dial(ctx, addr, wire.Raft) },
		Client: dialer.Client(), Log: logger(), Authorize: m.cluster.authorize, SnapshotEntries: m.cluster.entries,
	})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	m.node.Mount(mux)
	srv.HandleHTTP(mux)
	node := m.node
	ctx, cancel := context.WithCancel(context.Background())
	sctx, scancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var runErr error
	wg.Go(func() { runErr = node.Run(ctx) })
	wg.Go(func() {
		if err := srv.Run(sctx, ln); err != nil {
			t.Error(err)
		}
	})
	m.stop = func(graceful bool) error {
		m.stop = nil
		if !graceful {
			scancel() // connections die first, as in a crash
			node.Close()
		}
		cancel()
		if graceful {
			<-waitFor(func() { node.WaitApplied(context.Background(), 0) })
		}
		wg2 := waitFor(func() {
			if graceful {
				for node.Stats().State != "Shutdown" {
					time.Sleep(time.Millisecond)
				}
			}
			scancel()
			wg.Wait()
		})
		<-wg2
		dialer.Close()
		return runErr
	}
	return m
}

func waitFor(fn func()) <-chan struct{} {
	ch := make(chan struct{})
	go func() { fn(); close(ch) }()
	return ch
}

// up starts all members and bootstraps.
func (c *cluster) up() *cluster {
	c.t.Helper()
	for _, m := range c.members {
		m.start()
	}
	if err := c.members[0].node.Bootstrap(c.servers()); err != nil {
		c.t.Fatal(err)
	}
	c.leader()
	return c
}

// leader waits for a leader among the running members.
func (c *cluster) leader() *member {
	c.t.Helper()
	var lead *member
	eventually(c.t, "a leader", func() bool {
		for _, m := range c.members {
			if m.stop != nil && m.node.IsLeader() {
				lead = m
				return true
			}
		}
		return false
	})
	return lead
}

func (c *cluster) follower() *member {
	lead := c.leader()
	for _, m := range c.members {
		if m != lead && m.stop != nil {
			return m
		}
	}
	c.t.Fatal("no follower")
	return nil
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("no %s in time", what)
}

type proposer interface {
	Propose(ctx context.Context, data []byte) (uint64, any, error)
}

func put(t testing.TB, p proposer, line string) uint64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	index, _, err := p.Propose(ctx, []byte(line))
	if err != nil {
		t.Fatalf("propose %q: %v", line, err)
	}
	return index
}
