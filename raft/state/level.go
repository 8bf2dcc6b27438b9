package state

import "fmt"

// reads is the highest protocol level whose snapshots this binary reads.
var reads = 1

// Reads sets the highest protocol level whose snapshots this binary reads; package command, which knows
// the level, calls it before anything else runs.
func Reads(level int) { reads = level }

// NewerError means that a log or a snapshot is of a protocol level that this binary does not speak. The
// node must stop: what it does not know it would drop.
type NewerError struct {
	What  string // "the cluster", "the snapshot"
	Level int
	Reads int
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("%s has protocol level %d, this version speaks %d: run a newer version of the binary on this node", e.What, e.Level, e.Reads)
}
