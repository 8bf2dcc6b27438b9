package sched

import (
	"fmt"
	"slices"
	"time"

	"appliance/node/model"
	"appliance/raft/state"
)

// Explanation is the answer to "why does it wait": the cause and the smallest
// change that would help.
type Explanation struct {
	App      string                    `json:"app"`
	Tasks    int                       `json:"tasks"` // that have no place
	Since    time.Time                 `json:"since"`
	Cause    string                    `json:"cause"`
	Fix      string                    `json:"fix"`
	Nodes    map[model.RefusalCode]int `json:"nodes,omitempty"` // refusing nodes by cause
	Refusals []model.Refusal           `json:"refusals,omitempty"`
}

// nearness orders the causes: the later, the closer the node is to taking the
// task, the smaller the change.
var nearness = []model.RefusalCode{
	model.RefusedEnvironment, model.RefusedStatus, model.RefusedConstraint, model.RefusedVolume,
	model.RefusedGPUs, model.RefusedDisk, model.RefusedMemory, model.RefusedCPUs, model.RefusedPorts, model.RefusedBackoff,
}

// ExplainApp explains the waiting tasks of an app, nil if none waits.
func ExplainApp(s *state.Snapshot, app string, now time.Time) *Explanation {
	var mine []Pending
	for _, p := range Queue(s) {
		if p.Task.App == app {
			mine = append(mine, p)
		}
	}
	if len(mine) == 0 {
		return nil
	}
	return Explain(mine, Allocate(s, now), now)
}

// Explain matches the tasks of one app against the offers alone and explains
// what is left over, nil if nothing is.
func Explain(pending []Pending, offers []Offer, now time.Time) *Explanation {
	sorted := groups(pending)
	here := takeCensus(sorted, offers)
	for _, group := range sorted {
		m := newMatcher(group[0], offers, here, now)
		for i, p := range group {
			if _, ok := m.place(p.Task); ok {
				continue
			}
			all := m.refusals()
			w := waiting(group[i:], all)
			e := &Explanation{App: w.App, Tasks: w.Tasks, Since: w.Since, Refusals: w.Refusals, Nodes: map[model.RefusalCode]int{}}
			for _, r := range all {
				e.Nodes[r.Code]++
			}
			e.Cause, e.Fix = m.advise(all)
			return e
		}
	}
	return nil
}

// advise looks at the nodes nearest to taking the task.
func (m *matcher) advise(all []model.Refusal) (cause, fix string) {
	if len(all) == 0 {
		return "the cluster has no agents", "join one with: appliance join --role agent"
	}
	nearest := slices.MaxFunc(all, func(a, b model.Refusal) int {
		return slices.Index(nearness, a.Code) - slices.Index(nearness, b.Code)
	})
	same := 0
	for _, r := range all {
		if r.Code == nearest.Code {
			same++
		}
	}
	node := m.offer(nearest.Node)
	count := fmt.Sprintf("%d of %d nodes", same, len(all))
	switch nearest.Code {
	case model.RefusedEnvironment:
		return m.adviseEnvironment(nearest)
	case model.RefusedStatus:
		return fmt.Sprintf("%s of environment %s take no tasks (%s: %s)", count, m.Env.Name, node.Node.Name, nearest.Detail),
			"start the machine again, end its drain, or join another agent with " + pairs(m.Env.Selector, nil)
	case model.RefusedConstraint:
		return fmt.Sprintf("%s are ruled out by a constraint (%s: %s)", count, node.Node.Name, nearest.Detail),
			"relax that constraint, ask for fewer instances, or join an agent that satisfies it"
	case model.RefusedVolume:
		return nearest.Detail, "wait until its servers are up, or look with: appliance volumes"
	case model.RefusedPorts:
		return fmt.Sprintf("%s have the port in use (%s: %s)", count, node.Node.Name, nearest.Detail),
			"use host port 0 so that any free one is taken, or stop the other task"
	case model.RefusedBackoff:
		return nearest.Detail, "look at the output with: appliance logs " + m.App.ID + " and deploy a release that starts"
	}
	return m.adviseAmount(nearest.Code, count)
}

func (m *matcher) adviseEnvironment(r model.Refusal) (cause, fix string) {
	if m.Env == nil {
		return r.Detail, "make it with: appliance env create " + m.App.Env
	}
	return fmt.Sprintf("no node belongs to environment %s", m.Env.Name),
		"join an agent with the attributes " + pairs(m.Env.Selector, nil)
}

// adviseAmount names the node that lacks the least of a resource.
func (m *matcher) adviseAmount(code model.RefusalCode, count string) (cause, fix string) {
	of := map[model.RefusalCode]func(model.Resources) float64{
		model.RefusedCPUs:   func(r model.Resources) float64 { return r.CPUs },
		model.RefusedMemory: func(r model.Resources) float64 { return r.Memory },
		model.RefusedDisk:   func(r model.Resources) float64 { return r.Disk },
		model.RefusedGPUs:   func(r model.Resources) float64 { return r.GPUs },
	}[code]
	var best *Offer
	for i := range m.offers {
		o := &m.offers[i]
		if m.refuse(o).Code == code && (best == nil || of(o.Free) > of(best.Free)) {
			best = o
		}
	}
	want, free := of(m.Task.Resources), of(best.Free)
	return fmt.Sprintf("%s lack %s: a task wants %s, the most is %s free on %s", count, code, amount(want), amount(free), best.Node.Name),
		fmt.Sprintf("ask for at most %s %s, or free %s on %s", amount(free), code, amount(want-max(free, 0)), best.Node.Name)
}

func (m *matcher) offer(node string) *Offer {
	for i := range m.offers {
		if m.offers[i].Node.ID == node {
			return &m.offers[i]
		}
	}
	return nil
}
