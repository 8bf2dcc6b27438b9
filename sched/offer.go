// Package sched decides where tasks run. Its core is pure: Allocate turns a
// view of the state into offers, Match gives waiting tasks their places or
// typed refusals, Explain says what would help, Share orders frameworks by
// dominant resource fairness, Validate judges a spec. Loop is the thin shell
// that the leader runs around them.
package sched

import (
	"time"

	"appliance/node/model"
	"appliance/raft/state"
)

// failureMemory is how long a failed task counts against the node it ran on:
// long enough that a broken machine is avoided, short enough to forgive.
const failureMemory = 5 * time.Minute

// DefaultPortRange is used for a node that names none; it is that of Mesos.
var DefaultPortRange = [2]int{31000, 32000}

// Offer is what one agent has free at one moment. It belongs to one Match,
// which counts it down; the records that it points to are shared and are not
// changed.
type Offer struct {
	Node   *model.Node
	Free   model.Resources
	Ports  map[int]bool  // host ports of live tasks
	Tasks  []*model.Task // live tasks of the node
	Failed []*model.Task // tasks that failed here lately
}

// Allocate gives one offer per agent, in the order of node ids. Agents that
// take no tasks are offered too, so that Match can say why it passed them
// over; a framework must only see those that Run.
func Allocate(s *state.Snapshot, now time.Time) []Offer {
	var offers []Offer
	at := map[string]int{}
	for n := range state.Nodes.All(s) {
		if n.Role != model.RoleAgent {
			continue
		}
		at[n.ID] = len(offers)
		offers = append(offers, Offer{Node: n, Free: n.Capacity, Ports: map[int]bool{}})
	}
	for t := range state.Tasks.All(s) {
		i, ok := at[t.Node]
		if !ok {
			continue
		}
		o := &offers[i]
		switch {
		case t.Live():
			o.take(t)
		case t.Status.State == model.TaskFailed && now.Sub(t.Status.At) < failureMemory:
			o.Failed = append(o.Failed, t)
		}
	}
	return offers
}

// take counts a live task into the offer.
func (o *Offer) take(t *model.Task) {
	o.Free = o.Free.Sub(t.Resources)
	for _, p := range t.Ports {
		o.Ports[p] = true
	}
	o.Tasks = append(o.Tasks, t)
}

// load is the larger used share of cpus and memory, 0..1.
func (o *Offer) load() float64 {
	return max(usedShare(o.Free.CPUs, o.Node.Capacity.CPUs), usedShare(o.Free.Memory, o.Node.Capacity.Memory))
}

func usedShare(free, capacity float64) float64 {
	if capacity <= 0 {
		return 0
	}
	return 1 - free/capacity
}

// PortRange is the range of host ports for tasks on the node, inclusive.
func PortRange(n *model.Node) [2]int {
	if n.PortRange[0] <= 0 || n.PortRange[1] < n.PortRange[0] {
		return DefaultPortRange
	}
	return n.PortRange
}

// Pending is a task that waits for a place, with what decides about it.
type Pending struct {
	Task    *model.Task
	Spec    *model.AppSpec
	App     *model.App
	Env     *model.Environment // nil if it was deleted
	Volumes []string           // named volumes that are not ready yet
}

// Queue lists the waiting tasks of the app layer in the order of the state.
func Queue(s *state.Snapshot) []Pending {
	var queue []Pending
	specs := map[string]*Pending{}
	for t := range state.Tasks.By(s, "waiting", "yes") {
		key := model.ReleaseKey(t.App, t.Release)
		common, seen := specs[key]
		if !seen {
			common = pendingOf(s, t, key)
			specs[key] = common
		}
		if common == nil || t.Stop {
			continue
		}
		p := *common
		p.Task = t
		queue = append(queue, p)
	}
	return queue
}

func pendingOf(s *state.Snapshot, t *model.Task, key string) *Pending {
	app, rel := state.Apps.Get(s, t.App), state.Releases.Get(s, key)
	if app == nil || rel == nil {
		return nil // the app was deleted: its tasks are on their way out
	}
	p := &Pending{Spec: &rel.Spec, App: app, Env: state.Environments.Get(s, app.Env)}
	for _, v := range rel.Spec.Volumes {
		if v.Name != "" && state.Volumes.Get(s, v.Name) == nil {
			p.Volumes = append(p.Volumes, v.Name)
		}
	}
	return p
}
