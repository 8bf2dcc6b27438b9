package deploy

import (
	"fmt"
	"time"

	"appliance/node/model"
	"appliance/raft/command"
)

// A release is given up before its deadline when its instances have failed
// this many times each, in a row: twice if no task of it serves, so that one
// hiccup of a registry does not undo a deployment; more often if some serve
// and the fault may be a node's. A single instance gets a few more tries.
const (
	hopelessRounds = 2
	mixedRounds    = 4
	fewestFailures = 3
)

// officeTime is how long a leader leads before it calls a deployment late: it was given its time by another
// clock. A leader whose own is wrong is found, and hands over, meanwhile.
const officeTime = 15 * time.Second

// conclude ends the running deployment if it is time and reports whether it
// did.
func (s *survey) conclude(p *Plan, failures int) bool {
	d := s.Deployment
	done := s.ready >= s.App.Instances && len(s.target) == s.App.Instances
	deadline := Deadline(d, s.spec)
	if office := s.Since.Add(officeTime); office.After(deadline) {
		deadline = office
	}
	late := !s.Now.Before(deadline)
	switch {
	case done && s.live == len(s.target), done && late:
		p.add(&command.EndDeployment{ID: d.ID, State: model.DeploymentSucceeded, At: s.Now})
	case late:
		s.fail(p, fmt.Sprintf("%d of %d instances were ready at the deadline%s", s.ready, s.App.Instances, s.lastWords()))
	case s.hopeless(failures):
		s.fail(p, fmt.Sprintf("tasks of release %d keep failing%s", s.App.Release, s.lastWords()))
	default:
		p.at(deadline)
		return false
	}
	return true
}

// hopeless reports whether a new release has failed too often to go on. A
// release that was stable before is never given up early.
func (s *survey) hopeless(failures int) bool {
	if s.App.Release == s.App.Stable {
		return false
	}
	for _, t := range s.target {
		if t.Status.Healthy != nil && !*t.Status.Healthy && t.Status.ReadyAt.IsZero() {
			failures += hopelessRounds // its checks have failed several times
		}
	}
	rounds := hopelessRounds
	if s.ready > 0 {
		rounds = mixedRounds
	}
	return failures >= max(rounds*s.App.Instances, fewestFailures)
}

// fail ends the deployment and, if another release was stable, starts the way
// back to it. The old tasks still serve: they were only stopped as successors
// became healthy.
func (s *survey) fail(p *Plan, why string) {
	d := s.Deployment
	end := &command.EndDeployment{ID: d.ID, State: model.DeploymentFailed, Why: why, At: s.Now}
	stable := s.App.Stable
	if back := s.Release(stable); back != nil && stable != d.To && d.Kind != "revert" {
		end.State = model.DeploymentReverted
		end.Next = &model.Deployment{
			ID: s.NewID(), App: d.App, Kind: "revert", To: stable, Instances: d.FromInstances, Reverts: d.ID, StartedAt: s.Now,
		}
		end.Next.Deadline = Deadline(end.Next, &back.Spec)
	}
	p.add(end)
}

// lastWords quotes the newest failure of the release.
func (s *survey) lastWords() string {
	var last *model.Task
	for _, t := range s.Tasks {
		unwell := s.failed(t) || t.Release == s.App.Release && t.Status.Healthy != nil && !*t.Status.Healthy
		if unwell && t.Status.Message != "" && (last == nil || t.ModifyIndex > last.ModifyIndex) {
			last = t
		}
	}
	if last == nil {
		return ""
	}
	return fmt.Sprintf(": %s: %s", last.ID, last.Status.Message)
}
