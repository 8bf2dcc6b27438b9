package raft_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"appliance/node/pki"
	"appliance/node/wire"
	"appliance/node/wire/wiretest"
	"appliance/raft"
	"appliance/raft/rafttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestProposeFromAnyNode(t *testing.T) {
	c := rafttest.New(t, 3).Up()
	for i, m := range c.Members {
		index, res, err := m.Node.Propose(t.Context(), []byte(m.ID))
		if err != nil || res != fmt.Sprint("line ", i+1) {
			t.Fatalf("%s: %v, %v", m.ID, res, err)
		}
		if got := m.SM.Text(); len(got) != i+1 || got[i] != m.ID {
			t.Errorf("%s does not read its own write: %v", m.ID, got)
		}
		if m.Node.Replica().Applied() < index {
			t.Error("returned before it was applied here")
		}
		_, res, err = m.Node.Propose(t.Context(), []byte("refuse"))
		if e, ok := res.(error); err != nil || !ok || e.Error() != "refused by the state" {
			t.Errorf("%s: refusal arrives as %v, %v", m.ID, res, err)
		}
	}
	if _, _, err := c.Members[0].Node.Propose(t.Context(), make([]byte, raft.MaxPayload+1)); !errors.Is(err, raft.ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	if err := c.Members[0].Node.Bootstrap(c.Servers()); err == nil {
		t.Error("bootstrapped twice")
	}
}

// A leader whose process is gone is replaced because its port is closed, not because its heartbeats fail.
func TestLeaderThatIsGoneIsReplacedAtOnce(t *testing.T) {
	c := rafttest.New(t, 3)
	var asked atomic.Int32
	c.Log = slog.New(heard{rafttest.Logger().Handler(), "asks to lead", &asked})
	c.Up()
	lead := c.Leader()
	rafttest.Put(t, lead.Node, "before")
	if asked.Load() != 0 {
		t.Fatal("somebody asked before the leader was gone")
	}
	lead.Stop(false)
	rafttest.Put(t, c.Leader().Node, "after")
	rafttest.Eventually(t, "candidate that knows why", func() bool { return asked.Load() > 0 })
	rafttest.Put(t, lead.Start().Node, "back")
}

// heard counts the records that contain a text.
type heard struct {
	slog.Handler
	text  string
	count *atomic.Int32
}

func (h heard) Enabled(context.Context, slog.Level) bool { return true }

func (h heard) Handle(ctx context.Context, r slog.Record) error {
	if strings.Contains(r.Message, h.text) {
		h.count.Add(1)
	}
	if !h.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// Writers on all nodes, the leader dies by a hard close; nothing acknowledged may be lost or doubled.
func TestLeaderLossLosesNothing(t *testing.T) {
	c := rafttest.New(t, 3).Up()
	lead := c.Leader()
	var mu sync.Mutex
	acked := map[string]bool{}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var after atomic.Int64
	var killed atomic.Bool
	for _, m := range c.Members {
		for w := range 4 {
			wg.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					line := fmt.Sprintf("%s/%d/%d", m.ID, w, i)
					if _, _, err := m.Node.Propose(ctx, []byte(line)); err != nil {
						return // the killed node, or the end
					}
					mu.Lock()
					acked[line] = true
					mu.Unlock()
					if killed.Load() {
						after.Add(1)
					}
				}
			})
		}
	}
	rafttest.Eventually(t, "first writes", func() bool { mu.Lock(); defer mu.Unlock(); return len(acked) > 200 })
	lead.Stop(false)
	killed.Store(true)
	rafttest.Eventually(t, "writes after the loss", func() bool { return after.Load() > 200 })
	cancel()
	wg.Wait()
	lead.Start()
	last := rafttest.Put(t, lead.Node, "end")
	for _, m := range c.Members {
		if err := m.Node.WaitApplied(t.Context(), last); err != nil {
			t.Fatal(err)
		}
		seen := map[string]int{}
		for _, l := range m.SM.Text() {
			if seen[l]++; seen[l] > 1 {
				t.Errorf("%s: %q was applied twice", m.ID, l)
			}
		}
		for l := range acked {
			if seen[l] == 0 {
				t.Errorf("%s: acknowledged %q is lost", m.ID, l)
			}
		}
	}
	if !slices.Equal(c.Members[0].SM.Text(), c.Members[1].SM.Text()) {
		t.Error("the nodes differ")
	}
}

func TestAllRestartFromDisk(t *testing.T) {
	c := rafttest.New(t, 3)
	c.Entries = 64
	c.Up()
	for i := range 200 {
		rafttest.Put(t, c.Members[i%3].Node, fmt.Sprint(i))
	}
	for _, m := range c.Members {
		if err := m.Node.Snapshot(); err != nil {
			t.Fatal(err)
		}
	}
	rafttest.Put(t, c.Members[0].Node, "after the snapshot")
	for _, m := range c.Members {
		m.Stop(false)
	}
	for _, m := range c.Members {
		m.Start()
		if !m.Node.HasState() {
			t.Error("no state after restart")
		}
	}
	last := rafttest.Put(t, c.Members[1].Node, "after the restart")
	for _, m := range c.Members {
		if err := m.Node.WaitApplied(t.Context(), last); err != nil {
			t.Fatal(err)
		}
		got := m.SM.Text()
		if len(got) != 202 || got[0] != "0" || got[200] != "after the snapshot" || got[201] != "after the restart" {
			t.Errorf("%s has %d lines", m.ID, len(got))
		}
	}
}

func TestReadsAreLinearizable(t *testing.T) {
	c := rafttest.New(t, 3).Up()
	for i := range 30 {
		w, r := c.Members[i%3], c.Members[(i+1)%3]
		line := fmt.Sprint("v", i)
		rafttest.Put(t, w.Node, line)
		if err := r.Node.Linearize(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := r.SM.Text(); got[len(got)-1] != line {
			t.Fatalf("%s reads %q after %q was acknowledged", r.ID, got[len(got)-1], line)
		}
	}
}

func TestWithoutMajorityNothingIsConfirmed(t *testing.T) {
	c := rafttest.New(t, 3).Up()
	left := c.Follower()
	rafttest.Put(t, left.Node, "x")
	for _, m := range c.Members {
		if m != left {
			m.Stop(false)
		}
	}
	rafttest.Eventually(t, "loss of the leader", func() bool { id, _ := left.Node.Leader(); return id == "" })
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, _, err := left.Node.Propose(ctx, []byte("y")); !errors.Is(err, raft.ErrNoLeader) || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("write: %v", err)
	}
	if _, err := left.Node.ReadIndex(ctx); !errors.Is(err, raft.ErrNoLeader) {
		t.Errorf("read: %v", err)
	}
	if got := left.SM.Text(); len(got) != 1 {
		t.Errorf("stale state is gone: %v", got)
	}
}

// letIn makes a running member a voter, as whoever leads the cluster does it: step by step, each until it is done.
func letIn(t *testing.T, c *rafttest.Cluster, m *rafttest.Member) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	rafttest.Eventually(t, "standby", func() bool { return c.Leader().Node.AddStandby(ctx, m.ID, m.Addr) == nil })
	rafttest.Eventually(t, "standby that has caught up", func() bool {
		all, err := c.Leader().Node.Members(ctx)
		return err == nil && slices.ContainsFunc(all, func(s raft.Member) bool { return s.ID == m.ID && s.CaughtUp && !s.Voter })
	})
	for range 2 { // it may be repeated
		rafttest.Eventually(t, "voter", func() bool { return c.Leader().Node.Promote(ctx, m.ID, m.Addr) == nil })
	}
}

func TestMembershipGrowsAndShrinks(t *testing.T) {
	c := rafttest.New(t, 1).Up()
	for i := range 20 {
		rafttest.Put(t, c.Members[0].Node, fmt.Sprint(i))
	}
	for range 2 {
		letIn(t, c, c.Add().Start())
	}
	servers, err := c.Leader().Node.Servers()
	if err != nil || len(servers) != 3 || !servers[2].Voter {
		t.Fatalf("%+v, %v", servers, err)
	}
	// Rebuilt machine: same address, new id and an empty directory.
	old := c.Members[2]
	old.Stop(false)
	c.Members = c.Members[:2]
	m := c.AddAs("m9", old.Addr).Start()
	lead := c.Leader()
	if err := lead.Node.RemoveServer(t.Context(), old.ID); err != nil {
		t.Fatal(err)
	}
	letIn(t, c, m)
	if err := lead.Node.Demote(t.Context(), "m9"); err != nil {
		t.Fatal(err)
	}
	if all, err := lead.Node.Members(t.Context()); err != nil || len(all) != 3 || all[2].Voter || !all[2].Answers {
		t.Errorf("demoted: %+v, %v", all, err)
	}
	letIn(t, c, m)
	if err := lead.Node.RemoveServer(t.Context(), c.Follower().ID); err != nil {
		t.Fatal(err)
	}
	rafttest.Put(t, m.Node, "a majority of two")
	if got := m.SM.Text(); len(got) != 21 {
		t.Errorf("new member has %d lines", len(got))
	}
}

func TestStandbyThatDoesNotAnswerLeavesVotesAlone(t *testing.T) {
	c := rafttest.New(t, 1).Up()
	n := c.Members[0].Node
	if err := n.AddStandby(t.Context(), "ghost", "127.0.0.1:1"); err != nil {
		t.Fatal(err)
	}
	if all, err := n.Members(t.Context()); err != nil || len(all) != 2 || all[1].Answers || all[1].CaughtUp {
		t.Errorf("%+v, %v", all, err)
	}
	rafttest.Put(t, n, "the majority is still one")
}

// All masters come back at other addresses; the log's configuration has the old ones. Whoever knows where
// they are (gossip) brings them together, and the leader can put the configuration right.
func TestMastersAtOtherAddresses(t *testing.T) {
	c := rafttest.New(t, 3)
	c.Locate = func(id string) string {
		for _, m := range c.Members {
			if m.ID == id {
				return m.Addr
			}
		}
		return ""
	}
	c.Up()
	rafttest.Put(t, c.Members[0].Node, "before")
	for _, m := range c.Members {
		m.Stop(false)
	}
	for _, m := range c.Members {
		m.Addr = wiretest.Addr()
	}
	for _, m := range c.Members {
		m.Start()
	}
	rafttest.Put(t, c.Members[1].Node, "after")
	lead := c.Leader()
	for _, m := range c.Members {
		if err := lead.Node.AddStandby(t.Context(), m.ID, m.Addr); err != nil {
			t.Fatal(err)
		}
	}
	servers, err := lead.Node.Servers()
	for i, s := range servers {
		if s.Addr != c.Members[i].Addr || !s.Voter {
			t.Errorf("server %+v of the log, %v", s, err)
		}
	}
}

func TestLeadershipHooksFollowLeadership(t *testing.T) {
	c := rafttest.New(t, 3)
	var running atomic.Int32
	var most atomic.Int32
	for _, m := range c.Members {
		m.Start()
		m.Node.OnLeadership(func(ctx context.Context) {
			if n := running.Add(1); n > most.Load() {
				most.Store(n)
			}
			<-ctx.Done()
			running.Add(-1)
		})
	}
	if err := c.Members[0].Node.Bootstrap(c.Servers()); err != nil {
		t.Fatal(err)
	}
	lead := c.Leader()
	rafttest.Eventually(t, "a running hook", func() bool { return running.Load() == 1 })
	if err := lead.Stop(true); err != nil { // graceful: hands over
		t.Fatal(err)
	}
	rafttest.Eventually(t, "the hook elsewhere", func() bool { return running.Load() == 1 && c.Leader() != lead })
	if most.Load() != 1 {
		t.Errorf("%d hooks ran at once", most.Load())
	}
	rafttest.Put(t, c.Leader().Node, "x")
}

func TestUnknownEntryStopsTheNode(t *testing.T) {
	c := rafttest.New(t, 1).Up()
	m := c.Members[0]
	rafttest.Put(t, m.Node, "good")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, _, err := m.Node.Propose(ctx, []byte("unknown")); !errors.Is(err, raft.ErrHalted) {
		t.Errorf("propose: %v", err)
	}
	err := m.Stop(true)
	if !errors.Is(err, raft.ErrHalted) || !strings.Contains(err.Error(), "run a newer version") {
		t.Errorf("run ended with %v", err)
	}
	if err := m.Node.Replica().WaitApplied(t.Context(), 1<<40); !errors.Is(err, raft.ErrHalted) {
		t.Errorf("waiter: %v", err)
	}
}

func TestRemoteProposesAndIsAuthorized(t *testing.T) {
	c := rafttest.New(t, 3)
	c.Authorize = func(p wire.Peer, payload []byte) error {
		if p.Role == pki.Agent && !strings.HasPrefix(string(payload), p.ID+":") {
			return fmt.Errorf("%s may only report its own tasks", p.Name)
		}
		return nil
	}
	c.Up()
	d := wire.NewDialer(c.CA.Keychain(t, "a1", pki.Agent))
	t.Cleanup(d.Close)
	r := raft.NewRemote(raft.NewReplica(&rafttest.Journal{}), d.Client(), func() []string { return []string{c.Members[0].Addr, c.Members[1].Addr, c.Members[2].Addr} })
	t.Cleanup(r.Close)
	index, res, err := r.Propose(t.Context(), []byte("a1:up"))
	if err != nil || res != "line 1" {
		t.Fatalf("%v, %v", res, err)
	}
	if got, err := r.ReadIndex(t.Context()); err != nil || got < index {
		t.Errorf("read index %d < %d, %v", got, index, err)
	}
	if _, _, err := r.Propose(t.Context(), []byte("a2:up")); !errors.Is(err, raft.ErrDenied) || !strings.Contains(err.Error(), "a1 may only") {
		t.Errorf("foreign report: %v", err)
	}
	if _, err := r.Readmit(t.Context(), "a1", "127.0.0.1:1"); !errors.Is(err, raft.ErrDenied) {
		t.Errorf("an agent made itself a member: %v", err)
	}
	// A master that is no leader passes an agent's proposal on.
	f := raft.NewRemote(raft.NewReplica(&rafttest.Journal{}), d.Client(), func() []string { return []string{c.Follower().Addr} })
	t.Cleanup(f.Close)
	rafttest.Put(t, f, "a1:through a follower")
}
