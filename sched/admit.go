package sched

import (
	"time"

	"appliance/node/model"
	"appliance/raft/state"
)

// Admit judges a spec against the cluster as it is: the environment exists,
// and at least one of its agents, if it were empty and alive, could take an
// instance; with UNIQUE or MAX_PER, that there are enough places for all. It
// does not look at what is free now: that changes, and the task waits.
func Admit(s *state.Snapshot, spec *model.AppSpec) error {
	if err := Validate(spec); err != nil {
		return err
	}
	name, _ := model.SplitAppID(spec.ID)
	env := state.Environments.Get(s, name)
	if env == nil {
		return model.Errorf(model.CodeNotFound, "there is no environment %q", name).
			Because("the id %s begins with it", spec.ID).Try("choose a known one, or make it with: appliance env create %s", name)
	}
	if err := admitSecrets(s, name, spec); err != nil {
		return err
	}
	if spec.Instances == 0 {
		return nil
	}
	pending := imagined(spec, env)
	if e := Explain(pending, emptyAgents(s), time.Time{}); e != nil {
		return model.Errorf(model.CodeUnplaceable, "no node can ever take all of %s", spec.ID).Because("%s", e.Cause).Try("%s", e.Fix)
	}
	return nil
}

// imagined gives as many tasks as the constraints must allow: one, or every
// instance if places are counted.
func imagined(spec *model.AppSpec, env *model.Environment) []Pending {
	n := 1
	lone := model.Resources{CPUs: spec.Resources.CPUs, Memory: spec.Resources.Memory, Disk: spec.Resources.Disk, GPUs: spec.Resources.GPUs}
	for _, c := range spec.Constraints {
		if c.Operator == opUnique || c.Operator == opMaxPer {
			n, lone = spec.Instances, model.Resources{} // several on one node share it over time; amounts are judged below
		}
	}
	app := &model.App{ID: spec.ID, Env: env.Name}
	var out []Pending
	for i := range n {
		t := &model.Task{ID: spec.ID + "." + string(rune('a'+i%26)), App: spec.ID, Release: 1, Env: env.Name, Resources: lone}
		out = append(out, Pending{Task: t, Spec: portless(spec), App: app, Env: env})
	}
	first := *out[0].Task
	first.Resources = spec.Resources
	out[0].Task = &first
	return out
}

// portless keeps the ports out of it: a taken port is free again some day.
func portless(spec *model.AppSpec) *model.AppSpec {
	s := *spec
	s.Ports = nil
	return &s
}

// emptyAgents offers every agent as if it were alive and idle.
func emptyAgents(s *state.Snapshot) []Offer {
	var offers []Offer
	for n := range state.Nodes.All(s) {
		if n.Role != model.RoleAgent || n.Status == model.NodeLeft {
			continue
		}
		idle := *n
		idle.Status, idle.Drain = model.NodeReady, false
		offers = append(offers, Offer{Node: &idle, Free: n.Capacity, Ports: map[int]bool{}})
	}
	return offers
}
