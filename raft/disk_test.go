package raft_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
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
	free := make(chan struct{})
	c := rafttest.New(t, 3).Up()
	rafttest.Put(t, c.Members[0].Node, "before")
	lead, other := c.Leader(), c.Follower()
	raft.Stall(lead.Dir, func() { <-free })
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
	close(free)
	lead.Stop(false)
	if err := <-done; err != nil {
		t.Error(err)
	}
	rafttest.Put(t, other.Node, "after")
	if got := other.SM.Text(); len(got) != 3 {
		t.Errorf("lines %v", got)
	}
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
