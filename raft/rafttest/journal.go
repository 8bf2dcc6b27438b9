package rafttest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
)

// Journal is a state machine that keeps every payload in order.
type Journal struct {
	mu    sync.Mutex
	Lines []string
}

// Apply implements raft.StateMachine. The payload "unknown" is fatal, "refuse" is an error result.
func (j *Journal) Apply(index, _ uint64, data []byte) any {
	if bytes.Equal(data, []byte("unknown")) {
		return unreadable("entry of kind 99 is not known: run a newer version")
	}
	if bytes.Equal(data, []byte("refuse")) {
		return errors.New("refused by the state")
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.Lines = append(j.Lines, string(data))
	return fmt.Sprint("line ", len(j.Lines))
}

// Text returns the lines so far.
func (j *Journal) Text() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]string(nil), j.Lines...)
}

// unreadable is an error that stops the node.
type unreadable string

func (e unreadable) Error() string { return string(e) }
func (unreadable) Fatal() bool     { return true }

type jsonWriter struct{ v any }

func (w jsonWriter) WriteTo(out io.Writer) (int64, error) {
	b, err := json.Marshal(w.v)
	if err != nil {
		return 0, err
	}
	n, err := out.Write(b)
	return int64(n), err
}

// Snapshot implements raft.StateMachine.
func (j *Journal) Snapshot() (io.WriterTo, error) { return jsonWriter{j.Text()}, nil }

// Restore implements raft.StateMachine. A snapshot with the payload "unknown" is fatal.
func (j *Journal) Restore(r io.Reader) error {
	var lines []string
	if err := json.NewDecoder(r).Decode(&lines); err != nil {
		return err
	}
	if slices.Contains(lines, "unknown") {
		return unreadable("a snapshot of form 99 is not known: run a newer version")
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.Lines = lines
	return nil
}
