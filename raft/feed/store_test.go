package feed

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"appliance/node/wire/wiretest"
	"appliance/raft"
	"appliance/raft/rafttest"
)

func TestSavePause(t *testing.T) {
	tests := []struct {
		name  string
		cost  time.Duration
		quiet bool
		alone bool
		want  time.Duration
	}{
		{"small, quiet", time.Millisecond, true, false, saveSoon},
		{"small, busy", time.Millisecond, false, false, saveBusy},
		{"large, quiet", 50 * time.Millisecond, true, false, 5 * time.Second},
		{"large, busy", 200 * time.Millisecond, false, false, 20 * time.Second},
		{"huge", time.Minute, false, false, saveEvery},
		{"large, and the masters fell silent", time.Second, true, true, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := savePause(tt.cost, tt.quiet, tt.alone); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

// A change is on disk soon after the log came to rest; a log that never rests is saved seldom, and the
// end of the process saves all.
func TestPersist(t *testing.T) {
	dir := t.TempDir()
	replica := raft.NewReplica(&rafttest.Journal{})
	f, err := NewFollower(Config{Replica: replica, Dir: dir, Log: wiretest.Quiet()})
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); f.persist(ctx) }()
		index := uint64(0)
		change := func() {
			index++
			replica.Apply([]raft.Entry{{Index: index, Term: 1}})
		}
		change()
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if f.saved != 1 {
			t.Errorf("a single change: saved %d", f.saved)
		}
		saves, last := 0, f.saved
		for range 600 { // a minute
			change()
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			if f.saved != last {
				saves, last = saves+1, f.saved
			}
		}
		if saves < 2 || saves > 6 {
			t.Errorf("%d saves in a busy minute", saves)
		}
		cancel()
		<-ended
		if f.saved != index {
			t.Errorf("at the end: saved %d of %d", f.saved, index)
		}
	})
	if _, err := os.Stat(filepath.Join(dir, snapshotFile)); err != nil {
		t.Error(err)
	}
}

// A node that starts without masters knows as of when its state is: when a master last confirmed it,
// however long before that the last change was.
func TestLoadedStateHasItsTime(t *testing.T) {
	dir := t.TempDir()
	start := func() (*Follower, *raft.Replica) {
		replica := raft.NewReplica(&rafttest.Journal{})
		f, err := NewFollower(Config{Replica: replica, Dir: dir, Log: wiretest.Quiet()})
		if err != nil {
			t.Fatal(err)
		}
		return f, replica
	}
	f, replica := start()
	if !f.Status().Loaded.IsZero() {
		t.Errorf("loaded %s from nothing", f.Status().Loaded)
	}
	run := func(f *Follower, during func()) {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() { defer close(ended); f.persist(ctx) }()
		during()
		cancel()
		<-ended
	}
	var heard time.Time
	synctest.Test(t, func(t *testing.T) {
		run(f, func() {
			replica.Apply([]raft.Entry{{Index: 1, Term: 1}})
			for range 100 {
				time.Sleep(time.Second)
				heard = time.Now()
				f.heard("m1", frame{kind: kindHeartbeat, nums: [3]uint64{1, 1, 1}})
			}
			time.Sleep(10 * time.Hour) // without masters
		})
	})
	for range 2 {
		f, _ = start()
		if got := f.Status().Loaded; !got.Equal(heard) {
			t.Errorf("loaded as of %s, a master was last heard at %s", got, heard)
		}
		if !f.Status().Contact.IsZero() || !f.Status().Stale(time.Now()) {
			t.Error("it counts as heard")
		}
		run(f, func() {}) // hears nobody
	}
}
