package state_test

import (
	"bytes"
	"io"
	"testing"

	"appliance/raft/state"
	"appliance/raft/state/statetest"
)

const manyTasks = 100_000

// BenchmarkRestore is the row "restore of 100,000 tasks".
func BenchmarkRestore(b *testing.B) {
	var file bytes.Buffer
	if err := statetest.Full(1, manyTasks).Snapshot().Write(&file); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(file.Len()))
	b.ReportAllocs()
	for b.Loop() {
		if err := state.New().Restore(bytes.NewReader(file.Bytes())); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkWrite is a snapshot of as many.
func BenchmarkWrite(b *testing.B) {
	snap := statetest.Full(1, manyTasks).Snapshot()
	b.ReportAllocs()
	for b.Loop() {
		if err := snap.Write(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkHash is what a checkpoint costs in the background.
func BenchmarkHash(b *testing.B) {
	snap := statetest.Full(2, manyTasks).Snapshot()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := snap.Hash(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkView is what it costs the log.
func BenchmarkView(b *testing.B) {
	tx := statetest.Full(2, manyTasks).Begin()
	defer tx.Abort()
	b.ReportAllocs()
	for b.Loop() {
		tx.View(1 << 20)
	}
}
