package sched

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"time"

	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
	"appliance/sched/deploy"
)

const (
	// settleTime lets changes that come together be answered together.
	settleTime = 2 * time.Millisecond
	// retryTime is the pause after a proposal that did not get through, and
	// until a refused placement is tried again.
	retryTime = 250 * time.Millisecond
	// proposeTimeout bounds one proposal.
	proposeTimeout = 10 * time.Second
	// sweepTime is the longest time without a round: old tasks are forgotten.
	sweepTime = time.Minute
	// livenessTime is how often a Liveness without Changed is asked.
	livenessTime = 250 * time.Millisecond
)

// Receipts measures deployments at the proxies. Begin is called when a
// deployment is first seen running, again after a change of leader; Finish
// when it ends, and may return nil.
type Receipts interface {
	Begin(d *model.Deployment)
	Finish(d *model.Deployment) *model.Receipt
}

// Loop makes wishes come true. Exactly one runs: the leader's. Fields are set
// before Run and not changed.
type Loop struct {
	Store    *state.Store
	Proposer command.Proposer
	Self     string        // id of this node, which is alive by definition
	NewID    func() string // short unique ids
	Log      *slog.Logger
	// Now is the clock of decisions and of what is written; nil: time.Now.
	Now func() time.Time

	Liveness  Liveness      // nil: every node is alive
	DeadAfter time.Duration // 0: DefaultDeadAfter
	Receipts  Receipts      // may be nil
	// EnsureVolume creates a named volume for an environment; nil: volumes
	// must be there already. Calls for one name do not overlap.
	EnsureVolume func(ctx context.Context, name, env string) error
}

// term is one run of the loop: what the leader remembers between rounds.
// Everything in it may be lost at any time.
type term struct {
	*Loop
	started   time.Time
	deadAfter time.Duration
	measured  map[string]bool // deployments whose receipt has begun
	volumes   *volumes
}

// Run works until ctx ends, whose error it returns. The caller starts it when
// this node becomes the leader and ends ctx when it no longer is.
func (l *Loop) Run(ctx context.Context) error {
	if l.Now == nil {
		l.Now = time.Now
	}
	t := &term{Loop: l, started: l.Now(), deadAfter: l.DeadAfter, measured: map[string]bool{}, volumes: newVolumes(l)}
	if t.deadAfter == 0 {
		t.deadAfter = DefaultDeadAfter
	}
	defer t.volumes.wait()
	for {
		opinions := t.opinions() // before they are read, so that no change falls between
		snap := l.Store.Snapshot()
		next, err := t.round(ctx, snap)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			l.Log.Warn("a scheduling round was cut short", "err", err)
			next = t.Now().Add(retryTime)
			snap = l.Store.Snapshot() // what was committed needs no waking up
		}
		if err := t.sleep(ctx, snap, opinions, next); err != nil {
			return err
		}
	}
}

// opinions is closed at the next change of liveness, nil if nobody tells.
func (t *term) opinions() <-chan struct{} {
	if t.Liveness == nil {
		return nil
	}
	return t.Liveness.Changed()
}

// sleep waits for a change of what the loop looks at, or for next.
func (t *term) sleep(ctx context.Context, snap *state.Snapshot, opinions <-chan struct{}, next time.Time) error {
	now := t.Now()
	limit := earlier(now.Add(sweepTime), next)
	if t.Liveness != nil && opinions == nil {
		limit = earlier(limit, now.Add(livenessTime))
	}
	wait, cancel := context.WithTimeout(ctx, limit.Sub(now))
	defer cancel()
	stop := t.cancelOn(wait, cancel, opinions, t.volumes.changed)
	defer stop()
	err := snap.Wait(wait, state.Apps.Name, state.Tasks.Name, state.Nodes.Name, state.Deployments.Name,
		state.Environments.Name, state.Volumes.Name)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil {
		select {
		case <-ctx.Done():
		case <-time.After(settleTime):
		}
	}
	return ctx.Err()
}

// cancelOn ends the wait when one of the channels is ready. The returned
// function waits until nothing is left running.
func (t *term) cancelOn(ctx context.Context, cancel func(), opinions, volumes <-chan struct{}) (stop func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-opinions:
		case <-volumes:
		case <-ctx.Done():
		}
		cancel()
	}()
	return func() { cancel(); <-done }
}

// earlier is the first of two times; a zero one does not count.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// round looks at everything once: nodes, apps, leftovers; then it places what
// waits, on a view that has the new tasks.
func (t *term) round(ctx context.Context, snap *state.Snapshot) (next time.Time, err error) {
	commands, next := t.wishes(snap, t.Now())
	if len(commands) > 0 {
		if err := t.propose(ctx, commands); err != nil {
			return next, err
		}
		snap = t.Store.Snapshot()
	}
	retry, err := t.match(ctx, snap, t.Now())
	return earlier(next, retry), err
}

// wishes gives the commands for nodes, apps and leftovers.
func (t *term) wishes(snap *state.Snapshot, now time.Time) (commands []command.Command, next time.Time) {
	var list []*model.Node
	nodes := map[string]*model.Node{}
	for n := range state.Nodes.All(snap) {
		list = append(list, n)
		nodes[n.ID] = n
	}
	if t.Liveness != nil {
		commands, next = judge(list, t.Liveness, t.Self, t.started, now, t.deadAfter)
	}
	tasks, foreign := map[string][]*model.Task{}, map[string][]*model.Task{}
	for task := range state.Tasks.All(snap) {
		if task.Framework != "" {
			foreign[task.Framework] = append(foreign[task.Framework], task)
		} else {
			tasks[task.App] = append(tasks[task.App], task)
		}
	}
	for app := range state.Apps.All(snap) {
		plan := t.step(snap, app, tasks[app.ID], nodes, now)
		commands = append(commands, plan.Commands...)
		next = earlier(next, plan.Next)
	}
	t.finishMeasured(snap)
	if ids := forgettable(snap, tasks, foreign, now); len(ids) > 0 {
		for len(ids) > 0 {
			n := min(len(ids), maxBatch)
			commands = append(commands, &command.ForgetTasks{Tasks: ids[:n]})
			ids = ids[n:]
		}
	}
	return commands, next
}

// step asks deploy about one app and adds the receipt to a deployment's end.
func (t *term) step(snap *state.Snapshot, app *model.App, tasks []*model.Task, nodes map[string]*model.Node, now time.Time) deploy.Plan {
	d := state.Deployments.Get(snap, app.Deployment)
	if d != nil && t.Receipts != nil && !t.measured[d.ID] {
		t.measured[d.ID] = true
		t.Receipts.Begin(d)
	}
	plan := deploy.Step(deploy.Input{
		App: app, Deployment: d, Tasks: tasks, Now: now, Since: t.started, NewID: t.NewID,
		Release: releases(snap, app.ID),
		Node:    func(id string) *model.Node { return nodes[id] },
	})
	for _, c := range plan.Commands {
		if end, ok := c.(*command.EndDeployment); ok && d != nil {
			end.Receipt = t.receipt(snap, d, tasks, end)
			delete(t.measured, d.ID)
		}
	}
	return plan
}

// releases looks up an app's releases, each once: Step asks for every task.
func releases(snap *state.Snapshot, app string) func(uint64) *model.Release {
	found := map[uint64]*model.Release{0: nil}
	return func(v uint64) *model.Release {
		r, ok := found[v]
		if !ok {
			r = state.Releases.Get(snap, model.ReleaseKey(app, v))
			found[v] = r
		}
		return r
	}
}

// finishMeasured lets go of deployments that ended otherwise: superseded, or
// cancelled by a user.
func (t *term) finishMeasured(snap *state.Snapshot) {
	for id := range t.measured {
		if d := state.Deployments.Get(snap, id); d == nil || d.State != model.DeploymentRunning {
			if d != nil {
				t.Receipts.Finish(d)
			}
			delete(t.measured, id)
		}
	}
}

// match places what waits and keeps the explanations of the rest up to date.
func (t *term) match(ctx context.Context, snap *state.Snapshot, now time.Time) (retry time.Time, err error) {
	queue := Queue(snap)
	var m Matched
	if len(queue) > 0 {
		t.volumes.ensure(ctx, queue)
		m = Match(queue, Allocate(snap, now), now)
	}
	place := &command.Place{}
	told := map[string]bool{}
	for _, w := range m.Waiting {
		told[w.App] = true
		if old := state.Waiting.Get(snap, w.App); old == nil || !sameWaiting(*old, w) {
			place.Waiting = append(place.Waiting, w)
		}
	}
	for w := range state.Waiting.All(snap) {
		if !told[w.App] {
			place.Clear = append(place.Clear, w.App)
		}
	}
	place.Placements = m.Placements
	refused, err := t.place(ctx, place)
	if refused > 0 {
		retry = now.Add(retryTime)
	}
	return retry, err
}

func sameWaiting(a, b model.Waiting) bool {
	a.Meta, b.Meta = model.Meta{}, model.Meta{}
	if !a.Since.Equal(b.Since) {
		return false
	}
	a.Since = b.Since
	return reflect.DeepEqual(a, b)
}

// isRefusal reports whether an error is the state's answer and not the
// transport's.
func isRefusal(err error) bool {
	var e *model.Error
	return errors.As(err, &e) && e.Code != model.CodeUnavailable
}
