package deploy

import (
	"time"

	"appliance/node/model"
	"appliance/raft/command"
)

const (
	// quickRun: a task that ends sooner counts as a failure of its release,
	// one that ran longer has proven that the release can run.
	quickRun = time.Minute
	// Delays between tries: the first, and the longest.
	firstDelay = time.Second
	maxDelay   = 2 * time.Minute
)

// backoff counts failures that were not counted yet and delays the next try;
// it forgets them when all instances have served for a while. It returns the
// present count. Tasks that are created meanwhile wait until the delay is
// over; Match says so.
func (s *survey) backoff(p *Plan) int {
	failures, index := s.App.Failures, s.App.FailuresIndex
	for _, t := range s.Tasks {
		if !s.failed(t) || t.ModifyIndex <= s.App.FailuresIndex {
			continue
		}
		index = max(index, t.ModifyIndex)
		if st := t.Status; !st.StartedAt.IsZero() && st.At.Sub(st.StartedAt) >= quickRun {
			failures = 0
			continue
		}
		failures++
	}
	if index != s.App.FailuresIndex {
		retry := time.Time{}
		if failures > 0 {
			retry = s.Now.Add(delay(failures, s.App.Instances))
		}
		p.add(&command.SetBackoff{App: s.App.ID, Failures: failures, RetryAt: retry, Index: index})
		p.at(retry)
		return failures
	}
	if Waits(s.App, s.Now) {
		p.at(s.App.RetryAt)
	}
	if failures > 0 && s.ready >= s.App.Instances && s.ready > 0 {
		if calm := s.calmAt(); calm.After(s.Now) {
			p.at(calm)
		} else {
			p.add(&command.SetBackoff{App: s.App.ID})
			return 0
		}
	}
	return failures
}

// Waits reports whether an app's tasks wait because others have failed. A time that is further away than the
// longest delay is that of a leader whose clock was ahead of ours: it says nothing.
func Waits(a *model.App, now time.Time) bool {
	return a.RetryAt.After(now) && !a.RetryAt.After(now.Add(maxDelay))
}

// failed reports whether the task ended by itself. Lost ones are the node's
// fault, stopped ones ended because of us. A service that exits with 0 has
// failed to serve.
func (s *survey) failed(t *model.Task) bool {
	if t.Release != s.App.Release || t.Stop {
		return false
	}
	switch t.Status.State {
	case model.TaskFailed, model.TaskError, model.TaskFinished, model.TaskKilled:
		return true
	}
	return false
}

// delay doubles with every round in which all instances have failed once.
func delay(failures, instances int) time.Duration {
	rounds := (failures - 1) / max(instances, 1)
	d := firstDelay
	for range min(rounds, 16) {
		d *= 2
	}
	return min(d, maxDelay)
}

// calmAt is when every instance will have served for quickRun.
func (s *survey) calmAt() time.Time {
	var newest time.Time
	for _, t := range s.target {
		for _, since := range []time.Time{t.Status.StartedAt, t.Status.ReadyAt} {
			if since.After(newest) {
				newest = since
			}
		}
	}
	return newest.Add(quickRun)
}
