package raft_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"appliance/raft"
	"appliance/raft/rafttest"
)

func config(m *rafttest.Member, sm raft.StateMachine) raft.Config {
	return raft.Config{ID: m.ID, Addr: m.Addr, Dir: m.Dir, Aside: m.Dir + "-aside", Replica: raft.NewReplica(sm), Log: rafttest.Logger()}
}

func TestRecoverKeepsWhatTheSurvivorHas(t *testing.T) {
	t.Parallel()
	c := rafttest.New(t, 3).Up()
	for range 20 {
		rafttest.Put(t, c.Leader().Node, "before")
	}
	m := c.Follower()
	rafttest.Eventually(t, "all entries on the survivor", func() bool { return len(m.SM.Text()) == 20 })
	for _, x := range c.Members {
		x.Stop(false)
	}
	before, err := raft.Inspect(config(m, &rafttest.Journal{}))
	if err != nil || len(before.Servers) != 3 || before.Last < 20 {
		t.Fatalf("%+v %v", before, err)
	}
	copied, err := raft.Recover(config(m, &rafttest.Journal{}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(copied, "log/wal-meta.db")); err != nil {
		t.Error("no copy:", err)
	}
	sm := &rafttest.Journal{}
	after, err := raft.Inspect(config(m, sm))
	if err != nil || len(after.Servers) != 1 || after.Servers[0].ID != m.ID || after.Last != before.Last || after.Less(before) || len(sm.Text()) != 20 {
		t.Fatalf("%+v %v", after, err)
	}
	m.Start()
	rafttest.Put(t, m.Node, "after")
	added := c.Add().Start()
	if err := m.Node.EnsureVoter(t.Context(), added.ID, added.Addr); err != nil {
		t.Fatal(err)
	}
	rafttest.Eventually(t, "the state on the new master", func() bool { return len(added.SM.Text()) == 21 })
}

// A master whose log is gone is taken in as a new one: only the leader ends its quarantine, and it takes
// part from that term on only.
func TestReadmittedMasterBeginsAnew(t *testing.T) {
	t.Parallel()
	c := rafttest.New(t, 3).Up()
	lost := c.Follower()
	lost.Stop(false)
	line := rafttest.Put(t, c.Leader().Node, "while away")
	place, err := raft.SetAside(config(lost, nil))
	if err != nil || place == "" {
		t.Fatal(place, err)
	}
	if _, err := raft.SetAside(config(lost, nil)); err != nil {
		t.Fatal("once more:", err)
	}
	remote := raft.NewRemote(raft.NewReplica(&rafttest.Journal{}), lost.Dialer.Client(), func() []string { return []string{c.Members[0].Addr, c.Members[1].Addr, c.Members[2].Addr} })
	t.Cleanup(remote.Close)
	term, err := remote.Readmit(t.Context(), lost.ID, lost.Addr)
	if err != nil || term < 2 {
		t.Fatal(term, err)
	}
	servers, err := c.Leader().Node.Servers()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range servers {
		if s.ID == lost.ID && s.Voter {
			t.Error("it votes before it has caught up")
		}
	}
	if err := raft.Renew(config(lost, nil), term); err != nil {
		t.Fatal(err)
	}
	lost.Start()
	if got := lost.Node.Stats().Term; got < term {
		t.Errorf("term %d, readmitted in %d", got, term)
	}
	if err := c.Leader().Node.EnsureVoter(t.Context(), lost.ID, lost.Addr); err != nil {
		t.Fatal(err)
	}
	if err := lost.Node.WaitApplied(t.Context(), line); err != nil {
		t.Fatal(err)
	}
}

func TestReadmitIsForOneself(t *testing.T) {
	t.Parallel()
	c := rafttest.New(t, 3).Up()
	other := c.Follower()
	remote := raft.NewRemote(raft.NewReplica(&rafttest.Journal{}), other.Dialer.Client(), func() []string { return []string{c.Leader().Addr} })
	t.Cleanup(remote.Close)
	if _, err := remote.Readmit(t.Context(), c.Leader().ID, c.Leader().Addr); err == nil || errors.Is(err, raft.ErrNoLeader) {
		t.Errorf("got %v", err)
	}
}
