// Package deploy reconciles an app with its wish. Step is pure: from what the
// state says now it derives the next commands and the time at which it must
// be asked again; it keeps nothing between calls, so any leader can go on
// where another stopped.
//
// Invariant: it never stops a healthy task if fewer than
// ceil(minHealth*instances) healthy ones would be left.
package deploy

import (
	"strings"
	"time"

	"appliance/node/model"
	"appliance/raft/command"
)

// DefaultDeadline ends a deployment that names no deadline of its own.
const DefaultDeadline = 5 * time.Minute

// Input is everything that Step looks at. Records are not changed.
type Input struct {
	App        *model.App
	Release    func(version uint64) *model.Release // nil if unknown
	Deployment *model.Deployment                   // the app's running one, or nil
	Tasks      []*model.Task                       // all of the app, ended ones too
	Node       func(id string) *model.Node         // nil if unknown
	Now        time.Time
	Since      time.Time     // when this leader took office, by the clock of Now
	NewID      func() string // short unique ids
}

// Plan is what to do now, and when to look again if nothing changes before;
// a zero Next means that only a change matters.
type Plan struct {
	Commands []command.Command
	Next     time.Time
}

func (p *Plan) add(c command.Command) { p.Commands = append(p.Commands, c) }

// at asks for another look no later than t.
func (p *Plan) at(t time.Time) {
	if !t.IsZero() && (p.Next.IsZero() || t.Before(p.Next)) {
		p.Next = t
	}
}

// Step gives the next commands for one app, in the order in which they must
// be applied.
func Step(in Input) Plan {
	var p Plan
	target := in.Release(in.App.Release)
	if target == nil {
		return p // the state keeps the releases that it needs; nothing can be started
	}
	s := look(in, &target.Spec)
	failures := s.backoff(&p)
	if s.running() && s.conclude(&p, failures) {
		return p // the end may have started another wish: look at that first
	}
	s.reconcile(&p)
	return p
}

// TaskID derives a task's id from its app's, as Marathon does; clients take
// the app's id out of it.
func TaskID(app, unique string) string {
	return strings.ReplaceAll(strings.TrimPrefix(app, "/"), "/", "_") + "." + unique
}

// Deadline is when a deployment counts as failed.
func Deadline(d *model.Deployment, spec *model.AppSpec) time.Time {
	if !d.Deadline.IsZero() {
		return d.Deadline
	}
	if spec.Upgrade.Deadline > 0 {
		return d.StartedAt.Add(spec.Upgrade.Deadline.D())
	}
	return d.StartedAt.Add(DefaultDeadline)
}
