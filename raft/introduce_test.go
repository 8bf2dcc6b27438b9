package raft_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"appliance/raft"
	"appliance/raft/rafttest"
)

// A master that was behind when another one got its vote does not know that. If the leader is lost for ever then,
// these two are a majority all the same.
func TestVoterThatNobodyLeftHasMetCanBeElected(t *testing.T) {
	t.Parallel()
	c := rafttest.New(t, 2).Up()
	added := c.Add().Start()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	rafttest.Eventually(t, "standby", func() bool { return c.Leader().Node.AddStandby(ctx, added.ID, added.Addr) == nil })
	rafttest.Eventually(t, "standby that has caught up", func() bool {
		all, err := c.Leader().Node.Members(ctx)
		return err == nil && slices.ContainsFunc(all, func(s raft.Member) bool { return s.ID == added.ID && s.CaughtUp })
	})
	lead, behind := c.Leader(), c.Follower()
	if behind == added {
		behind = c.Members[0]
		if behind == lead {
			behind = c.Members[1]
		}
	}
	behind.Stop(false)
	if err := lead.Node.Promote(ctx, added.ID, added.Addr); err != nil {
		t.Fatal(err)
	}
	rafttest.Put(t, lead.Node, "by the new majority")
	lead.Stop(false)
	behind.Start()
	rafttest.Eventually(t, "a leader", func() bool { return added.Node.IsLeader() })
	rafttest.Put(t, behind.Node, "after")
	rafttest.Eventually(t, "the state on the one that was behind", func() bool { return len(behind.SM.Text()) == 2 })
}
