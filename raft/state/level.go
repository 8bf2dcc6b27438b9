package state

import (
	"fmt"
	"reflect"
)

// reads is the highest protocol level whose snapshots this binary reads.
var reads = 1

// Reads sets the highest protocol level whose snapshots this binary reads;
// package command, which knows the level, calls it before anything else runs.
func Reads(level int) { reads = level }

// NewerError means that a log or a snapshot has something that this binary
// does not know. The node must stop: it would drop that and differ from the
// others.
type NewerError struct {
	What string // and why it is too new
}

func (e *NewerError) Error() string {
	return e.What + ": run a newer version of the binary on this node"
}

// NewerLevel is the error for a cluster of a level that this binary does not
// speak.
func NewerLevel(level int) error { return newerLevel("the cluster", level) }

func newerLevel(what string, level int) error {
	return &NewerError{What: fmt.Sprintf("%s has protocol level %d and this version speaks %d", what, level, reads)}
}

func newerTable(name string) error {
	return &NewerError{What: fmt.Sprintf("the snapshot has a table %q that this version does not know", name)}
}

// RowTypes are the types of all tables' rows, for checks.
func RowTypes() []reflect.Type {
	var out []reflect.Type
	for _, d := range registered {
		out = append(out, reflect.TypeOf(d.newRow()).Elem())
	}
	return out
}
