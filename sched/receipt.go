package sched

import (
	"time"

	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
)

// receipt completes what the proxies measured by what the state knows. A
// deployment passes if it succeeded and no request failed meanwhile.
func (t *term) receipt(snap *state.Snapshot, d *model.Deployment, tasks []*model.Task, end *command.EndDeployment) *model.Receipt {
	var r model.Receipt
	if t.Receipts != nil {
		if measured := t.Receipts.Finish(d); measured != nil {
			r = *measured
		}
	}
	if rel := state.Releases.Get(snap, model.ReleaseKey(d.App, d.To)); rel != nil && r.Digest == "" {
		r.Digest = rel.Digest
	}
	r.Took = model.Duration(end.At.Sub(d.StartedAt))
	if r.FirstHealthy == 0 {
		r.FirstHealthy = firstHealthy(d, tasks)
	}
	r.Passed = end.State == model.DeploymentSucceeded && r.Failed == 0
	return &r
}

func firstHealthy(d *model.Deployment, tasks []*model.Task) model.Duration {
	var first time.Time
	for _, t := range tasks {
		at := latest(t.Status.StartedAt, t.Status.ReadyAt)
		if t.Release == d.To && !at.Before(d.StartedAt) && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	if first.IsZero() {
		return 0
	}
	return model.Duration(first.Sub(d.StartedAt))
}
