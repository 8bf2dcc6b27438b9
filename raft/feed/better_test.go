package feed

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"appliance/raft"
	"appliance/raft/rafttest"
)

// at makes an agent that follows a certain master first and may then choose.
func at(t *testing.T, c *rafttest.Cluster, m *rafttest.Member) *agent {
	var free atomic.Bool
	a := follow(t, c, t.TempDir(), func() []string {
		if free.Load() {
			return all(c)()
		}
		return []string{m.Addr}
	})
	rafttest.Eventually(t, "feed", func() bool { return a.Status().Master == m.Addr })
	free.Store(true)
	return a
}

func TestUnfitMasterIsLeft(t *testing.T) {
	c := masters(t, 3, ringEntries)
	m := c.Follower()
	a := at(t, c, m)
	m.Node.Unfit("its clock is off", true)
	rafttest.Eventually(t, "another master", func() bool { now := a.Status().Master; return now != "" && now != m.Addr })
	a.reach(t, rafttest.Put(t, c.Leader().Node, "more"))
}

// A master that no leader reaches serves old news for ever.
func TestMasterCutFromTheLeaderIsLeft(t *testing.T) {
	c := rafttest.New(t, 3)
	var cut atomic.Value
	cut.Store("")
	c.Locate = func(id string) string {
		if id == cut.Load() {
			return "127.0.0.1:1"
		}
		return ""
	}
	c.OnStart = func(m *rafttest.Member, mux *http.ServeMux) {
		newServer(m.Node, rafttest.Logger(), nil, newRing(ringEntries, ringBytes)).Mount(mux)
	}
	c.Up()
	m := c.Follower()
	cut.Store(m.ID)
	m.Stop(false) // the connections that are open would go on
	m.Start()
	a := at(t, c, m)
	a.reach(t, rafttest.Put(t, c.Leader().Node, "what the one that is cut off does not have"))
	if now := a.Status().Master; now == m.Addr {
		t.Error("still there")
	}
}

// laggard is a master whose news do not reach its followers, and who does not know.
type laggard struct {
	*raft.Node
	replica *raft.Replica
}

func (l laggard) Replica() *raft.Replica { return l.replica }

func TestMasterThatLagsWithoutKnowingIsLeft(t *testing.T) {
	c := rafttest.New(t, 3)
	c.OnStart = func(m *rafttest.Member, mux *http.ServeMux) {
		var feeds Master = m.Node
		if m == c.Members[0] {
			feeds = laggard{m.Node, raft.NewReplica(&rafttest.Journal{})}
		}
		newServer(feeds, rafttest.Logger(), nil, newRing(ringEntries, ringBytes)).Mount(mux)
	}
	c.Up()
	a := at(t, c, c.Members[0])
	last := rafttest.Put(t, c.Leader().Node, "what the laggard does not send")
	ctx, cancel := context.WithTimeout(t.Context(), 2*doubtEvery+20*time.Second) // on a starved machine the first look fails
	defer cancel()
	if err := a.replica.WaitApplied(ctx, last); err != nil {
		t.Fatal(err)
	}
	if now := a.Status().Master; now == c.Members[0].Addr {
		t.Error("still there")
	}
}

// A master that is as far as the others is not left.
func TestMasterThatKeepsUpIsNotLeft(t *testing.T) {
	c := masters(t, 3, ringEntries)
	m := c.Follower()
	a := at(t, c, m)
	for range 20 {
		rafttest.Put(t, c.Leader().Node, "more")
		if other := a.ahead(t.Context(), m.Addr); other != "" {
			t.Fatalf("%s is taken for better", other)
		}
	}
}

// Without any leader a follower stays where it is, and goes on when there is one.
func TestFollowerStaysWhileNoMasterHasALeader(t *testing.T) {
	c := masters(t, 4, ringEntries)
	last := rafttest.Put(t, c.Leader().Node, "before")
	m := c.Follower()
	a := at(t, c, m)
	a.reach(t, last)
	var away *rafttest.Member
	for range 2 {
		for _, o := range c.Members {
			if o != m && o.Running() {
				o.Stop(false)
				away = o
				break
			}
		}
	}
	rafttest.Eventually(t, "end of leadership", m.Node.Behind)
	for end := time.Now().Add(lagLimit + 2*lookEvery); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if st := a.Status(); st.Master != m.Addr || st.Stale(time.Now()) {
			t.Fatalf("it moved: %+v", st)
		}
	}
	if got := a.sm.Text(); len(got) != 1 {
		t.Errorf("it has %v", got)
	}
	away.Start()
	a.reach(t, rafttest.Put(t, c.Leader().Node, "after"))
}
