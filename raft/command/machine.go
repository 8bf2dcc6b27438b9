package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"appliance/raft/state"
)

// Machine applies the log to a state. It is the state machine that package
// raft drives; calls never overlap.
type Machine struct {
	store *state.Store
	tx    *state.Tx // inside Batch
	last  uint64    // index of the last applied command of the batch

	checkpoint func(view *state.Snapshot)
}

// NewMachine returns a machine that writes to store and is its only writer.
func NewMachine(store *state.Store) *Machine { return &Machine{store: store} }

// fatal marks an entry that must not be skipped: the node has to stop.
type fatal struct{ error }

func (fatal) Fatal() bool     { return true }
func (f fatal) Unwrap() error { return f.error }

// Apply applies one entry and returns a Result, or a fatal error for an entry
// that this version does not understand.
func (m *Machine) Apply(index, _ uint64, data []byte) any {
	if m.tx == nil {
		var out any
		m.Batch(index, func() { out = m.Apply(index, 0, data) })
		return out
	}
	c, err := Decode(data)
	if err != nil {
		return fatal{err}
	}
	res, err := ApplyCommand(m.tx, index, c)
	if err != nil {
		return fatal{err}
	}
	m.last = index
	if m.checkpoint != nil && isCheckpoint(c) {
		m.checkpoint(m.tx.View(index))
	}
	return res
}

// OnCheckpoint has fn called at every Checkpoint with the state as of that
// entry. fn must be quick: the log waits. To be set before the first Apply.
func (m *Machine) OnCheckpoint(fn func(view *state.Snapshot)) { m.checkpoint = fn }

func isCheckpoint(c Command) bool {
	if a, ok := c.(*Audited); ok {
		c = a.Inner
	}
	_, ok := c.(*Checkpoint)
	return ok
}

// Batch makes what apply does visible at once, as of index. If an entry was
// refused as unknown, the state stays as of the entry before it.
func (m *Machine) Batch(index uint64, apply func()) {
	before := m.store.Index()
	m.tx, m.last = m.store.Begin(), before
	defer func() { m.tx = nil }()
	failed := true
	defer func() {
		if failed {
			m.tx.Abort() // apply panicked
		}
	}()
	apply()
	failed = false
	if m.last > before {
		m.tx.Commit(m.last)
	} else {
		m.tx.Abort()
	}
}

// Snapshot returns a view as of the last Apply.
func (m *Machine) Snapshot() (io.WriterTo, error) { return writer{m.store.Snapshot()}, nil }

type writer struct{ snap *state.Snapshot }

// WriteTo implements io.WriterTo; the count is not tracked.
func (w writer) WriteTo(out io.Writer) (int64, error) { return 0, w.snap.Write(out) }

// Restore replaces the state by a snapshot. The error is fatal for the node if
// a newer version is needed to read it.
func (m *Machine) Restore(r io.Reader) error {
	err := m.store.Restore(r)
	var newer *state.NewerError
	if errors.As(err, &newer) {
		return fatal{err}
	}
	return err
}

// EncodeResult carries a result to another node.
func (m *Machine) EncodeResult(v any) ([]byte, error) {
	res, ok := v.(Result)
	if !ok {
		return nil, fmt.Errorf("a result of type %T cannot travel", v)
	}
	res, err := res.encoded()
	if err != nil {
		return nil, err
	}
	return json.Marshal(res)
}

// DecodeResult is the other end.
func (m *Machine) DecodeResult(b []byte) (any, error) {
	var res Result
	err := json.Unmarshal(b, &res)
	return res, err
}
