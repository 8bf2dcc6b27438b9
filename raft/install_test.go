package raft_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"appliance/raft"
	"appliance/raft/rafttest"
)

// longTail leaves the first leader stopped, with a long end of its log that nobody else has and that
// reaches beyond the snapshot which the others need to bring it back.
func longTail(t *testing.T) (c *rafttest.Cluster, old *rafttest.Member, last uint64) {
	c = rafttest.New(t, 3)
	c.Trailing = 4
	c.Up()
	old = c.Leader()
	rafttest.Put(t, old.Node, "all have this")
	for _, m := range c.Members {
		if m != old {
			m.Stop(false)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range 400 { // it leads until its lease ends
		wg.Go(func() { old.Node.Propose(ctx, fmt.Append(nil, "lost ", i)) })
	}
	rafttest.Eventually(t, "end of its lease", func() bool { return !old.Node.IsLeader() })
	if st := old.Node.Stats(); st.Last < st.Commit+100 {
		t.Fatalf("no tail: %+v", st)
	}
	cancel()
	wg.Wait()
	old.Stop(false)
	for _, m := range c.Members {
		if m != old {
			m.Start()
		}
	}
	for i := range 50 {
		last = rafttest.Put(t, c.Leader().Node, fmt.Sprint("kept ", i))
	}
	for _, m := range c.Members {
		if m != old {
			if err := m.Node.Snapshot(); err != nil {
				t.Fatal(err)
			}
			m.Stop(false) // no append to the old leader stays prepared
			m.Start()
		}
	}
	return c, old, rafttest.Put(t, c.Leader().Node, "after the snapshot")
}

// hashicorp/raft goes on believing in the end that InstallSnapshot has removed, and refuses every append.
// The node ends, and has the true end when it starts again.
func TestSnapshotBelowTheEndOfTheLogIsNoticed(t *testing.T) {
	c, old, last := longTail(t)
	old.Start()
	done := make(chan error, 1)
	go func() { done <- old.Wait() }()
	select {
	case err := <-done:
		if !errors.Is(err, raft.ErrLostEnd) {
			t.Fatalf("ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("goes on as %+v", old.Node.Stats())
	}
	old.Stop(false)
	old.Start()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := old.Node.WaitApplied(ctx, last); err != nil {
		t.Fatalf("%v: %+v", err, old.Node.Stats())
	}
	rafttest.Put(t, old.Node, "and it takes part again")
	if got, want := old.SM.Text(), c.Leader().SM.Text(); !slices.Equal(got, want) {
		t.Errorf("it has %d lines, the leader %d", len(got), len(want))
	}
}
