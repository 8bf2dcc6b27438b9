package sched

import (
	"cmp"
	"slices"
	"time"

	"appliance/node/model"
	"appliance/raft/state"
)

const (
	keepEnded    = 10        // ended tasks of an app that stay for the reader
	keepEndedFor = time.Hour // and how long
	// keepForeign bounds the ended tasks of one framework that never
	// acknowledges.
	keepForeign = 10000
)

// forgettable lists ended tasks that nobody needs any more: all of a deleted
// app, those of an app beyond the newest few or too old, those of a framework
// that it has acknowledged or that is gone.
func forgettable(s *state.Snapshot, tasks map[string][]*model.Task, foreign map[string][]*model.Task, now time.Time) []string {
	var ids []string
	for app, list := range tasks {
		kept := state.Apps.Get(s, app) != nil
		for i, t := range endedNewestFirst(list) {
			if !kept || i >= keepEnded || now.Sub(t.Status.At) > keepEndedFor {
				ids = append(ids, t.ID)
			}
		}
	}
	for id, list := range foreign {
		f := state.Frameworks.Get(s, id)
		for i, t := range endedNewestFirst(list) {
			if f == nil || f.Removed || Acknowledged(t) || i >= keepForeign {
				ids = append(ids, t.ID)
			}
		}
	}
	slices.Sort(ids)
	return ids
}

func endedNewestFirst(tasks []*model.Task) []*model.Task {
	var ended []*model.Task
	for _, t := range tasks {
		if !t.Live() {
			ended = append(ended, t)
		}
	}
	slices.SortFunc(ended, func(a, b *model.Task) int {
		return cmp.Or(cmp.Compare(b.ModifyIndex, a.ModifyIndex), cmp.Compare(a.ID, b.ID))
	})
	return ended
}
