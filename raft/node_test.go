package raft_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"appliance/node/pki"
	"appliance/node/wire"
	"appliance/raft"
)

func TestProposeFromAnyNode(t *testing.T) {
	c := newCluster(t, 3).up()
	for i, m := range c.members {
		index, res, err := m.node.Propose(t.Context(), []byte(m.id))
		if err != nil || res != fmt.Sprint("line ", i+1) {
			t.Fatalf("%s: %v, %v", m.id, res, err)
		}
		if got := m.sm.lines(); len(got) != i+1 || got[i] != m.id {
			t.Errorf("%s does not read its own write: %v", m.id, got)
		}
		if m.node.Replica().Applied() < index {
			t.Error("returned before it was applied here")
		}
		_, res, err = m.node.Propose(t.Context(), []byte("refuse"))
		if e, ok := res.(error); err != nil || !ok || e.Error() != "refused by the state" {
			t.Errorf("%s: refusal arrives as %v, %v", m.id, res, err)
		}
	}
	if _, _, err := c.members[0].node.Propose(t.Context(), make([]byte, raft.MaxPayload+1)); !errors.Is(err, raft.ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	if err := c.members[0].node.Bootstrap(c.servers()); err == nil {
		t.Error("bootstrapped twice")
	}
}

// Writers on all nodes, the leader dies by a hard close; nothing acknowledged may be lost or doubled.
func TestLeaderLossLosesNothing(t *testing.T) {
	c := newCluster(t, 3).up()
	lead := c.leader()
	var mu sync.Mutex
	acked := map[string]bool{}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var after atomic.Int64
	var killed atomic.Bool
	for _, m := range c.members {
		for w := range 4 {
			wg.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					line := fmt.Sprintf("%s/%d/%d", m.id, w, i)
					if _, _, err := m.node.Propose(ctx, []byte(line)); err != nil {
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
	eventually(t, "first writes", func() bool { mu.Lock(); defer mu.Unlock(); return len(acked) > 200 })
	lead.stop(false)
	killed.Store(true)
	eventually(t, "writes after the loss", func() bool { return after.Load() > 200 })
	cancel()
	wg.Wait()
	lead.start()
	last := put(t, lead.node, "end")
	for _, m := range c.members {
		if err := m.node.WaitApplied(t.Context(), last); err != nil {
			t.Fatal(err)
		}
		seen := map[string]int{}
		for _, l := range m.sm.lines() {
			if seen[l]++; seen[l] > 1 {
				t.Errorf("%s: %q was applied twice", m.id, l)
			}
		}
		for l := range acked {
			if seen[l] == 0 {
				t.Errorf("%s: acknowledged %q is lost", m.id, l)
			}
		}
	}
	if !slices.Equal(c.members[0].sm.lines(), c.members[1].sm.lines()) {
		t.Error("the nodes differ")
	}
}

func TestAllRestartFromDisk(t *testing.T) {
	c := newCluster(t, 3)
	c.entries = 64
	c.up()
	for i := range 200 {
		put(t, c.members[i%3].node, fmt.Sprint(i))
	}
	for _, m := range c.members {
		if err := m.node.Snapshot(); err != nil {
			t.Fatal(err)
		}
	}
	put(t, c.members[0].node, "after the snapshot")
	for _, m := range c.members {
		m.stop(false)
	}
	for _, m := range c.members {
		m.start()
		if !m.node.HasState() {
			t.Error("no state after restart")
		}
	}
	last := put(t, c.members[1].node, "after the restart")
	for _, m := range c.members {
		if err := m.node.WaitApplied(t.Context(), last); err != nil {
			t.Fatal(err)
		}
		got := m.sm.lines()
		if len(got) != 202 || got[0] != "0" || got[200] != "after the snapshot" || got[201] != "after the restart" {
			t.Errorf("%s has %d lines", m.id, len(got))
		}
	}
}

func TestReadsAreLinearizable(t *testing.T) {
	c := newCluster(t, 3).up()
	for i := range 30 {
		w, r := c.members[i%3], c.members[(i+1)%3]
		line := fmt.Sprint("v", i)
		put(t, w.node, line)
		if err := r.node.Linearize(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := r.sm.lines(); got[len(got)-1] != line {
			t.Fatalf("%s reads %q after %q was acknowledged", r.id, got[len(got)-1], line)
		}
	}
}

func TestWithoutMajorityNothingIsConfirmed(t *testing.T) {
	c := newCluster(t, 3).up()
	left := c.follower()
	put(t, left.node, "x")
	for _, m := range c.members {
		if m != left {
			m.stop(false)
		}
	}
	eventually(t, "loss of the leader", func() bool { id, _ := left.node.Leader(); return id == "" })
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, _, err := left.node.Propose(ctx, []byte("y")); !errors.Is(err, raft.ErrNoLeader) || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("write: %v", err)
	}
	if _, err := left.node.ReadIndex(ctx); !errors.Is(err, raft.ErrNoLeader) {
		t.Errorf("read: %v", err)
	}
	if got := left.sm.lines(); len(got) != 1 {
		t.Errorf("stale state is gone: %v", got)
	}
}

func TestMembershipGrowsAndShrinks(t *testing.T) {
	c := newCluster(t, 1).up()
	for i := range 20 {
		put(t, c.members[0].node, fmt.Sprint(i))
	}
	for range 2 {
		m := c.add().start()
		// The joining node asks for itself, as `join` does; any master it knows will do.
		r := raft.NewRemote(m.node.Replica(), m.dialer.Client(), func() []string { return []string{c.members[0].addr} })
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		if err := r.EnsureVoter(ctx, m.id, m.addr); err != nil {
			t.Fatal(err)
		}
		if err := r.EnsureVoter(ctx, m.id, m.addr); err != nil {
			t.Errorf("not idempotent: %v", err)
		}
		cancel()
		r.Close()
	}
	servers, err := c.leader().node.Servers()
	if err != nil || len(servers) != 3 || !servers[2].Voter {
		t.Fatalf("%+v, %v", servers, err)
	}
	// Rebuilt machine: same address, new id and an empty directory.
	old := c.members[2]
	old.stop(false)
	c.members = c.members[:2]
	m := &member{id: "m9", addr: old.addr, dir: t.TempDir(), cluster: c, keys: c.ca.Keychain(t, "m9", pki.Master)}
	c.members = append(c.members, m)
	t.Cleanup(func() {
		if m.stop != nil {
			m.stop(false)
		}
	})
	m.start()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := c.members[1].node.EnsureVoter(ctx, "m9", m.addr); err != nil {
		t.Fatal(err)
	}
	if err := c.members[1].node.RemoveServer(ctx, "m1"); err != nil {
		t.Fatal(err)
	}
	c.members[0].stop(false)
	put(t, m.node, "still a majority of two")
	if got := m.sm.lines(); len(got) != 21 {
		t.Errorf("new member has %d lines", len(got))
	}
}

func TestEnsureVoterWithoutNodeLeavesVotesAlone(t *testing.T) {
	c := newCluster(t, 1).up()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := c.members[0].node.EnsureVoter(ctx, "ghost", "127.0.0.1:1"); err == nil {
		t.Fatal("a node that does not exist has a vote")
	}
	put(t, c.members[0].node, "the majority is still one")
}

func TestLeadershipHooksFollowLeadership(t *testing.T) {
	c := newCluster(t, 3)
	var running atomic.Int32
	var most atomic.Int32
	for _, m := range c.members {
		m.start()
		m.node.OnLeadership(func(ctx context.Context) {
			if n := running.Add(1); n > most.Load() {
				most.Store(n)
			}
			<-ctx.Done()
			running.Add(-1)
		})
	}
	if err := c.members[0].node.Bootstrap(c.servers()); err != nil {
		t.Fatal(err)
	}
	lead := c.leader()
	eventually(t, "a running hook", func() bool { return running.Load() == 1 })
	if err := lead.stop(true); err != nil { // graceful: hands over
		t.Fatal(err)
	}
	eventually(t, "the hook elsewhere", func() bool { return running.Load() == 1 && c.leader() != lead })
	if most.Load() != 1 {
		t.Errorf("%d hooks ran at once", most.Load())
	}
	put(t, c.leader().node, "x")
}

func TestUnknownEntryStopsTheNode(t *testing.T) {
	c := newCluster(t, 1).up()
	m := c.members[0]
	put(t, m.node, "good")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, _, err := m.node.Propose(ctx, []byte("unknown")); !errors.Is(err, raft.ErrHalted) {
		t.Errorf("propose: %v", err)
	}
	err := m.stop(true)
	if !errors.Is(err, raft.ErrHalted) || !strings.Contains(err.Error(), "run a newer version") {
		t.Errorf("run ended with %v", err)
	}
	if err := m.node.Replica().WaitApplied(t.Context(), 1<<40); !errors.Is(err, raft.ErrHalted) {
		t.Errorf("waiter: %v", err)
	}
}

func TestRemoteProposesAndIsAuthorized(t *testing.T) {
	c := newCluster(t, 3)
	c.authorize = func(p wire.Peer, payload []byte) error {
		if p.Role == pki.Agent && !strings.HasPrefix(string(payload), p.ID+":") {
			return fmt.Errorf("%s may only report its own tasks", p.Name)
		}
		return nil
	}
	c.up()
	d := wire.NewDialer(c.ca.Keychain(t, "a1", pki.Agent))
	t.Cleanup(d.Close)
	r := raft.NewRemote(raft.NewReplica(&journal{}), d.Client(), func() []string { return []string{c.members[0].addr, c.members[1].addr, c.members[2].addr} })
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
	if err := r.EnsureVoter(t.Context(), "a1", "127.0.0.1:1"); !errors.Is(err, raft.ErrDenied) {
		t.Errorf("an agent made itself a voter: %v", err)
	}
	// A master that is no leader passes an agent's proposal on.
	f := raft.NewRemote(raft.NewReplica(&journal{}), d.Client(), func() []string { return []string{c.follower().addr} })
	t.Cleanup(f.Close)
	put(t, f, "a1:through a follower")
	c.leader().stop(false)
	put(t, r, "a1:after the loss")
}
