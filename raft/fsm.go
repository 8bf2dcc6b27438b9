package raft

import (
	"io"

	hraft "github.com/hashicorp/raft"
)

// fsm is what hashicorp/raft drives; everything of substance is in Replica.
type fsm struct{ replica *Replica }

var _ hraft.BatchingFSM = fsm{}

func (f fsm) ApplyBatch(logs []*hraft.Log) []any {
	entries := make([]Entry, len(logs))
	for i, l := range logs {
		entries[i] = Entry{Index: l.Index, Term: l.Term}
		if l.Type == hraft.LogCommand {
			entries[i].Data = l.Data
		}
	}
	out := make([]any, len(logs))
	for i, o := range f.replica.Apply(entries) {
		out[i] = o
	}
	return out
}

func (f fsm) Apply(l *hraft.Log) any { return f.ApplyBatch([]*hraft.Log{l})[0] }

func (f fsm) Restore(r io.ReadCloser) error {
	defer r.Close()
	return f.replica.Restore(r)
}

func (f fsm) Snapshot() (hraft.FSMSnapshot, error) {
	s, err := f.replica.Snapshot()
	if err != nil {
		return nil, err
	}
	return fsmSnapshot{s}, nil
}

type fsmSnapshot struct{ s *Snapshot }

func (f fsmSnapshot) Persist(sink hraft.SnapshotSink) error {
	if _, err := f.s.WriteTo(sink); err != nil {
		sink.Cancel()
		return err
	}
	return sink.Close()
}

func (f fsmSnapshot) Release() { f.s.Release() }
