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
		want  time.Duration
	}{
		{"small, quiet", time.Millisecond, true, saveSoon},
		{"small, busy", time.Millisecond, false, saveBusy},
		{"large, quiet", 50 * time.Millisecond, true, 5 * time.Second},
		{"large, busy", 200 * time.Millisecond, false, 20 * time.Second},
		{"huge", time.Minute, false, saveEvery},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := savePause(tt.cost, tt.quiet); got != tt.want {
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
