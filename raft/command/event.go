package command

import (
	"iter"
	"time"

	"appliance/node/model"
	"appliance/raft/state"
)

// maxEvents bounds the history; older lines fall off. 5,000 lines are some
// hours of a busy cluster and about 2 MB.
const maxEvents = 5000

// RecordEvent adds a line of history that no other command implies.
type RecordEvent struct {
	Event model.Event `json:"event"`
}

func (c *RecordEvent) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	record(tx, index, c.Event.At, c.Event.Kind, c.Event.Subject, c.Event.Text, c.Event.Fields)
	return nil, nil
}

// record appends a line to the history and drops the oldest beyond the bound.
// Several lines of one entry are told apart by N.
func record(tx *state.Tx, index uint64, at time.Time, kind, subject, text string, fields map[string]string) {
	n := 0
	for e := range state.Events.Prefix(&tx.Snapshot, state.EventPrefix(index)) {
		n = e.N + 1
	}
	state.Events.Put(tx, index, &model.Event{Seq: index, N: n, At: at, Kind: kind, Subject: subject, Text: text, Fields: fields})
	state.TrimEvents(tx, index, maxEvents)
}

// collect copies rows out of a scan, so that the table may be written while
// they are walked.
func collect[T any](seq iter.Seq[*T]) []*T {
	var rows []*T
	for row := range seq {
		rows = append(rows, row)
	}
	return rows
}
