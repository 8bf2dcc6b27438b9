package raft_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"appliance/raft"
	"appliance/raft/rafttest"
)

func config(m *rafttest.Member, sm raft.StateMachine) raft.Config {
	return raft.Config{ID: m.ID, Addr: m.Addr, Dir: m.Dir, Aside: m.Dir + "-aside", Replica: raft.NewReplica(sm), Log: rafttest.Logger()}
}

// unreadable cannot be restored.
type unreadable struct{ rafttest.Journal }

func (*unreadable) Restore(io.Reader) error { return errors.New("no room") }

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
	copied := filepath.Join(t.TempDir(), "copy")
	for range 2 { // the second time after a crash: the copy is still that of the log before
		if err := raft.KeepCopy(config(m, nil), copied); err != nil {
			t.Fatal(err)
		}
		if changed, err := raft.Recover(config(m, &rafttest.Journal{})); !changed || err != nil {
			t.Fatal(changed, err)
		}
	}
	again := config(m, nil)
	again.Replica = raft.NewReplica(&unreadable{})
	if changed, err := raft.Recover(again); !changed || err == nil {
		t.Errorf("a failed attempt after one that was carried out: changed %v, %v", changed, err)
	}
	old := config(m, &rafttest.Journal{})
	old.Dir = copied
	if was, err := raft.Inspect(old); err != nil || len(was.Servers) != 3 {
		t.Errorf("the copy has %+v %v", was.Servers, err)
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
	letIn(t, c, added)
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
	place := filepath.Join(t.TempDir(), "aside", "place")
	for range 2 {
		if kept, err := raft.SetAside(config(lost, nil), place); !kept || err != nil {
			t.Fatal(kept, err)
		}
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
	letIn(t, c, lost)
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

// A copy that cannot be finished leaves no part of it, and nothing of an earlier one that a crash has cut short.
func TestKeepCopyIsWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	c := rafttest.New(t, 1).Up()
	m := c.Members[0]
	rafttest.Put(t, m.Node, "one")
	m.Stop(false)
	aside := t.TempDir()
	if err := os.MkdirAll(filepath.Join(aside, "1-raft.part", "log"), 0o700); err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(m.Dir, "zz") // comes last
	if err := os.Symlink("/nowhere", broken); err != nil {
		t.Fatal(err)
	}
	place := filepath.Join(aside, "2-raft")
	if err := raft.KeepCopy(config(m, nil), place); err == nil {
		t.Fatal("no error")
	}
	if left, _ := os.ReadDir(aside); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	os.Remove(broken)
	if err := raft.KeepCopy(config(m, nil), place); err != nil {
		t.Fatal(err)
	}
}

// Until a resync is done it may be undone: the log and its second copies come back as they were, also if a
// new log was begun, and whatever a crash had cut short.
func TestPutBack(t *testing.T) {
	t.Parallel()
	c := rafttest.New(t, 1).Up()
	m := c.Members[0]
	for range 5 {
		rafttest.Put(t, m.Node, "before")
	}
	m.Stop(false)
	dir := t.TempDir()
	conf := func() raft.Config {
		conf := config(m, &rafttest.Journal{})
		conf.Witness = filepath.Join(dir, "witness")
		return conf
	}
	if err := os.Rename(filepath.Join(m.Dir, "witness"), conf().Witness); err != nil {
		t.Fatal(err)
	}
	want, err := raft.Inspect(conf())
	if err != nil || want.Last < 5 {
		t.Fatal(want, err)
	}
	place, instead := filepath.Join(dir, "aside"), filepath.Join(dir, "instead")
	for name, between := range map[string]func(){
		"at once":                  func() {},
		"a new log was begun":      func() { must(t, raft.Renew(conf(), 99)) },
		"the log was back already": func() { must(t, os.Rename(filepath.Join(place, "raft"), m.Dir)) },
		"a copy was back already": func() {
			must(t, os.Rename(filepath.Join(place, "witness", "tail"), filepath.Join(dir, "witness", "tail")))
		},
	} {
		if kept, err := raft.SetAside(conf(), place); !kept || err != nil {
			t.Fatal(name, kept, err)
		}
		between()
		for range 2 {
			if err := raft.PutBack(conf(), place, filepath.Join(instead, name)); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		got, err := raft.Inspect(conf())
		if err != nil || got.Last != want.Last || got.Term != want.Term || !slices.Equal(got.Servers, want.Servers) {
			t.Fatalf("%s: %+v, was %+v: %v", name, got, want, err)
		}
		for _, file := range []string{"log", "tail"} {
			if _, err := os.Stat(filepath.Join(conf().Witness, file)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if err := os.RemoveAll(m.Dir); err != nil {
		t.Fatal(err)
	}
	if err := raft.PutBack(conf(), place, instead); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing was kept: %v", err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
