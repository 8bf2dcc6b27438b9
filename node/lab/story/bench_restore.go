package story

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"appliance/raft"
	"appliance/raft/command"
	"appliance/raft/state"
	"appliance/raft/state/statetest"
)

const (
	restoreTasks = 100_000
	restoreFloor = 5 // seconds
	restoreGoal  = 2.5
)

// restore is what a master does at its start, or when it was away for long: a snapshot from disk into memory. It runs
// in here, on one of the machines' disks.
func (b *Bench) restore(context.Context) error {
	path := filepath.Join(b.s.o.Dir, "restore.bench")
	defer os.Remove(path)
	if err := writeState(path, restoreTasks); err != nil {
		return err
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	store := state.New()
	began := time.Now()
	if err := raft.NewReplica(command.NewMachine(store)).Restore(file); err != nil {
		return err
	}
	took := time.Since(began)
	if n := state.Tasks.Count(store.Snapshot()); n != restoreTasks {
		return fmt.Errorf("%d tasks came back", n)
	}
	store = nil
	debug.FreeOSMemory() // the measurements that follow are not to pay for this
	b.less("restore of 100,000 tasks", "s", took.Seconds(), restoreFloor, restoreGoal,
		fmt.Sprintf("with a key each: %.0f MB on disk; measured while the lab runs", float64(info.Size())/1e6))
	return nil
}

// writeState writes the snapshot of a replica with so many tasks.
func writeState(path string, tasks int) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	snap, err := raft.NewReplica(command.NewMachine(statetest.Full(command.Speaks, tasks))).Snapshot()
	if err != nil {
		return err
	}
	defer snap.Release()
	out := bufio.NewWriter(file)
	if _, err := snap.WriteTo(out); err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return err
	}
	return file.Sync()
}
