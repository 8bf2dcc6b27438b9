package raft_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"appliance/node/needs"

	"appliance/raft"
	"appliance/raft/rafttest"
)

func TestFullDiskIsAClearErrorAndHeals(t *testing.T) {
	t.Parallel()
	disk := needs.Disk(t, "150m") // before the node: unmounted after it has ended
	c := rafttest.New(t, 1)
	m := c.Members[0]
	m.Dir = disk
	c.Up()
	line := strings.Repeat("x", 1<<20-64)
	ballast := filepath.Join(m.Dir, "ballast")
	if err := fill(ballast); err != nil {
		t.Fatal(err)
	}
	var failed error
	var acked []string
	for i := 0; i < 300 && failed == nil; i++ {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		text := fmt.Sprint(i, line)
		if _, _, failed = m.Node.Propose(ctx, []byte(text)); failed == nil {
			acked = append(acked, text)
		}
		cancel()
	}
	if !errors.Is(failed, raft.ErrDisk) {
		t.Fatalf("after %d MiB: %v", len(acked), failed)
	}
	if e := m.Node.Stats().DiskError; !strings.Contains(e, "free some space") {
		t.Errorf("stats say %q", e)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	rafttest.Put(t, m.Node, "space again")
	m.Stop(false)
	m.Start()
	rafttest.Put(t, m.Node, "restarted")
	got := m.SM.Text()
	for i, text := range acked {
		if got[i] != text {
			t.Fatalf("acknowledged entry %d is lost", i)
		}
	}
}

// The leader's disk hangs: it must not lead on, since its heartbeats do not need the disk.
func TestHungDiskEndsTheLeader(t *testing.T) {
	t.Parallel()
	c := rafttest.New(t, 3).Up()
	hang := make(chan struct{})
	free := sync.OnceFunc(func() { close(hang) })
	t.Cleanup(free) // or the node would never stop
	rafttest.Put(t, c.Members[0].Node, "before")
	lead, other := c.Leader(), c.Follower()
	raft.Stall(lead.Dir, func() { <-hang })
	t.Cleanup(func() { raft.Stall(lead.Dir, nil) })
	done := make(chan error, 1)
	go func() {
		_, _, err := other.Node.Propose(t.Context(), []byte("during"))
		done <- err
	}()
	ended := make(chan error, 1)
	go func() { ended <- lead.Wait() }()
	anotherLeads(t, c, lead)
	select {
	case err := <-ended:
		t.Errorf("the process ended before another node led: %v", err)
		ended <- err
	default:
	}
	err := <-ended // here the process would end
	if !errors.Is(err, raft.ErrDisk) || !strings.Contains(err.Error(), "hanging") {
		t.Errorf("run ended with %v", err)
	}
	free()
	lead.Stop(false)
	if err := <-done; err != nil {
		t.Error(err)
	}
	rafttest.Put(t, other.Node, "after")
	if got := other.SM.Text(); len(got) != 3 {
		t.Errorf("lines %v", got)
	}
}

// Proposals wait for a slow disk, and who made them goes: what raft has not seen is taken back.
func TestAbandonedProposalsAreDropped(t *testing.T) {
	t.Parallel()
	c := rafttest.New(t, 1).Up()
	m := c.Members[0]
	rafttest.Put(t, m.Node, "before")
	hang := make(chan struct{})
	free := sync.OnceFunc(func() { close(hang) })
	t.Cleanup(free) // or the node would never stop
	raft.Stall(m.Dir, func() { <-hang })
	t.Cleanup(func() { raft.Stall(m.Dir, nil) })
	var early sync.WaitGroup
	for i := range 32 { // as many rounds as may be open
		early.Go(func() { rafttest.Put(t, m.Node, fmt.Sprint("early ", i)) })
		time.Sleep(25 * time.Millisecond)
	}
	waiting := m.Node.Stats().Pending
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	var late sync.WaitGroup
	for range 100 {
		late.Go(func() {
			if _, _, err := m.Node.Propose(ctx, []byte("late")); !errors.Is(err, raft.ErrNoLeader) {
				t.Errorf("nothing was changed, but: %v", err)
			}
		})
	}
	late.Wait()
	if got := m.Node.Stats().Pending; got != waiting {
		t.Errorf("%d are pending, %d before", got, waiting)
	}
	free()
	early.Wait()
	rafttest.Put(t, m.Node, "after")
	if got := m.SM.Text(); len(got) != 34 || slices.Contains(got, "late") {
		t.Errorf("%d lines %q", len(got), got)
	}
	rafttest.Eventually(t, "end of all proposals", func() bool { return m.Node.Stats().Pending == 0 })
}

func fill(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, 1<<20)
	for {
		if _, err := f.Write(b); errors.Is(err, syscall.ENOSPC) {
			return nil
		} else if err != nil {
			return err
		}
	}
}
