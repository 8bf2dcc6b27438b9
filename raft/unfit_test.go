package raft_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"appliance/node/needs"

	"appliance/raft"
	"appliance/raft/rafttest"
)

// anotherLeads waits until a running member other than old leads.
func anotherLeads(t *testing.T, c *rafttest.Cluster, old *rafttest.Member) *rafttest.Member {
	t.Helper()
	var lead *rafttest.Member
	rafttest.Eventually(t, "leader but "+old.ID, func() bool {
		for _, m := range c.Members {
			if m != old && m.Running() && m.Node.IsLeader() {
				lead = m
				return true
			}
		}
		return false
	})
	return lead
}

func TestUnfitLeaderHandsOver(t *testing.T) {
	t.Parallel()
	c := rafttest.New(t, 3).Up()
	old := c.Leader()
	rafttest.Put(t, old.Node, "before")
	old.Node.Unfit("its clock is wrong", true)
	next := anotherLeads(t, c, old)
	rafttest.Put(t, old.Node, "after")
	if to, err := old.Node.Successor(t.Context()); err == nil { // it would depose the new leader
		t.Errorf("who was deposed still hands over, to %+v", to)
	}
	if got := old.Node.Stats().Unfit; !slices.Equal(got, []string{"its clock is wrong"}) {
		t.Errorf("unfit for %q", got)
	}
	// The next one dies: of the two that are left the healthy one leads, whoever was first to notice.
	next.Stop(false)
	last := anotherLeads(t, c, old)
	if last == next {
		t.Fatal("a dead node leads")
	}
	rafttest.Put(t, last.Node, "again")
}

func TestUnfitNodeLeadsIfNobodyElseCan(t *testing.T) {
	t.Parallel()
	c := rafttest.New(t, 3).Up()
	lead := c.Leader()
	for _, m := range c.Members {
		rafttest.Put(t, m.Node, "from "+m.ID) // so all know that they are three
		if m != lead {
			m.Node.Unfit("its clock is wrong", true)
		}
	}
	lead.Stop(false)
	next := anotherLeads(t, c, lead)
	rafttest.Put(t, next.Node, "led by one that should not")
	for _, m := range c.Members {
		if m != lead && m != next {
			m.Node.Unfit("its clock is wrong", false)
			rafttest.Eventually(t, "change to the one that is well", m.Node.IsLeader)
		}
	}
}

func TestSlowDiskMovesTheLeader(t *testing.T) {
	t.Parallel()
	c := rafttest.New(t, 3).Up()
	old := c.Leader()
	raft.Stall(old.Dir, func() { time.Sleep(400 * time.Millisecond) })
	t.Cleanup(func() { raft.Stall(old.Dir, nil) })
	var lead *rafttest.Member
	for i := 0; lead == nil; i++ {
		rafttest.Put(t, c.Members[i%3].Node, fmt.Sprint("line ", i))
		for _, m := range c.Members {
			if m != old && m.Node.IsLeader() {
				lead = m
			}
		}
	}
	raft.Stall(old.Dir, nil)
	rafttest.Eventually(t, "fast disk", func() bool { return len(old.Node.Stats().Unfit) == 0 })
}

// An idle leader whose disk fills: its log has room in allocated segments, but not for long.
func TestFullDiskMovesTheLeader(t *testing.T) {
	t.Parallel()
	var disks []string
	for range 3 {
		disks = append(disks, needs.Disk(t, "150m")) // before the nodes: unmounted after they have ended
	}
	c := rafttest.New(t, 3)
	for i, m := range c.Members {
		m.Dir = disks[i]
	}
	c.Up()
	old := c.Leader()
	rafttest.Put(t, old.Node, "before")
	ballast := filepath.Join(old.Dir, "ballast")
	if err := fill(ballast); err != nil {
		t.Fatal(err)
	}
	next := anotherLeads(t, c, old)
	for i := range 5 {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if _, _, err := old.Node.Propose(ctx, fmt.Append(nil, "full ", i)); err != nil {
			t.Error(err)
		}
		cancel()
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if t.Failed() {
			t.Logf("%+v", old.Node.Stats())
		}
	}()
	rafttest.Eventually(t, "space", func() bool { return len(old.Node.Stats().Unfit) == 0 })
	next.Stop(false)
	rafttest.Put(t, old.Node, "with space again")
	if got := old.SM.Text(); len(got) != 7 {
		t.Errorf("lines %q", got)
	}
}
