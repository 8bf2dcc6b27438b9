package raft_test

import (
	"testing"

	hraft "github.com/hashicorp/raft"

	"appliance/raft"
	"appliance/raft/rafttest"
)

// raft-wal seals the last segment to remove the end of a log. If writing its index fails, it takes the
// segment as sealed all the same, and the next try makes that durable: no entry of it can be read again.
func TestEndThatCannotBeRemovedIsNotTriedAgain(t *testing.T) {
	for seed := range uint64(20) {
		disk := rafttest.NewDisk(seed)
		store, err := disk.Open()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { store.Close() })
		log := raft.Watch(store)
		for i := range uint64(5) {
			if err := log.StoreLog(&hraft.Log{Index: i + 1, Term: 1, Data: make([]byte, 100)}); err != nil {
				t.Fatal(err)
			}
		}
		disk.Fill(rafttest.NoSpace)
		if err := log.DeleteRange(4, 5); err == nil {
			t.Fatal("removed without space")
		}
		disk.Fill(0)
		log.DeleteRange(4, 5) // as raft does with the next append
		log.StoreLog(&hraft.Log{Index: 4, Term: 2})
		disk.Crash()
		again, err := disk.Open()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { again.Close() })
		log = raft.Watch(again)
		if err := log.DeleteRange(4, 5); err != nil {
			t.Errorf("seed %d: not removed after a new start: %v", seed, err)
		}
		for i := range uint64(3) {
			if err := log.GetLog(i+1, &hraft.Log{}); err != nil {
				t.Fatalf("seed %d: entry %d: %v", seed, i+1, err)
			}
		}
	}
}
