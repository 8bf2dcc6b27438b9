package raft_test

import (
	"context"
	"testing"
	"time"

	"appliance/raft/rafttest"
)

// A machine that lost its disk joins as another node at its old address. The log still has the old one
// there; that it would vote and count in its place, with nothing of what it had acknowledged, is how
// writes are lost.
func TestNewNodeAtAnOldAddressDoesNotCountAsTheOldOne(t *testing.T) {
	c := rafttest.New(t, 3).Up()
	rafttest.Put(t, c.Leader().Node, "before")
	lost := c.Follower()
	lost.Stop(false)
	rebuilt := c.AddAs("rebuilt", lost.Addr).Start()
	rafttest.Put(t, c.Leader().Node, "two of three")
	lead := c.Leader()
	for _, m := range c.Members {
		if m != lead && m != lost && m != rebuilt {
			m.Stop(false)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if _, _, err := lead.Node.Propose(ctx, []byte("one of three")); err == nil {
		t.Error("one master of three and a stranger committed a write")
	}
	if got := rebuilt.Node.Stats(); got.Last != 0 || got.Term != 0 {
		t.Errorf("the stranger follows: %+v", got)
	}
}
