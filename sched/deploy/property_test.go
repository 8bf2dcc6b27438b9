package deploy

import (
	"testing"
	"time"

	"appliance/node/model"
	"appliance/raft/command"

	"pgregory.net/rapid"
)

// Whatever tasks, nodes and users do: bounds hold at every command (world
// verifies them), Step comes to rest, and once everything behaves the wish
// comes true.
func TestBoundsHoldWhateverHappens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, rapid.IntRange(1, 4).Draw(t, "nodes"))
		spec := func() model.AppSpec {
			s := model.AppSpec{Upgrade: model.UpgradePolicy{
				MinHealth: rapid.SampledFrom([]float64{0, 0.3, 0.5, 1}).Draw(t, "minHealth"),
				MaxOver:   rapid.SampledFrom([]float64{0, 0.3, 1}).Draw(t, "maxOver"),
			}}
			if rapid.Bool().Draw(t, "checked") {
				s.Checks = []model.Check{{Type: "tcp"}}
			}
			return s
		}
		size := func() int { return rapid.IntRange(0, 6).Draw(t, "instances") }
		w.deploy(spec(), size())
		node := func() string { return rapid.SampledFrom(w.nodes).Draw(t, "node") }
		t.Repeat(map[string]func(*rapid.T){
			"":       func(*rapid.T) { w.settle() },
			"deploy": func(*rapid.T) { w.deploy(spec(), size()) },
			"scale":  func(*rapid.T) { w.scale(size()) },
			"wait": func(t *rapid.T) {
				w.now = w.now.Add(time.Duration(rapid.IntRange(1, 200).Draw(t, "seconds")) * time.Second)
			},
			"drain": func(t *rapid.T) {
				w.apply(&command.SetNodeDrain{Node: node(), Drain: rapid.Bool().Draw(t, "on"), At: w.now})
			},
			"node": func(t *rapid.T) {
				status := rapid.SampledFrom([]model.NodeStatus{model.NodeReady, model.NodeDown}).Draw(t, "status")
				w.apply(&command.SetNodeStatus{Node: node(), Status: status, At: w.now})
			},
			"agents": func(t *rapid.T) {
				w.place()
				for _, task := range w.input().Tasks {
					if task.Live() && task.Node != "" {
						w.misbehave(t, task)
					}
				}
			},
		})
		for _, n := range w.nodes {
			w.apply(&command.SetNodeDrain{Node: n, At: w.now})
			w.apply(&command.SetNodeStatus{Node: n, Status: model.NodeReady, At: w.now})
		}
		w.recover()
		w.converge(all)
	})
}

// misbehave lets one task do one of the things that tasks do.
func (w *world) misbehave(t *rapid.T, task *model.Task) {
	switch rapid.SampledFrom([]string{"nothing", "run", "run", "fail", "sicken", "end"}).Draw(t, task.ID) {
	case "run":
		if task.Status.State != model.TaskKilling {
			w.observe(task, running(w))
		}
	case "fail":
		w.observe(task, failed)
	case "sicken":
		if task.Status.State == model.TaskRunning {
			w.observe(task, func(st *model.TaskStatus) { no := false; st.Healthy = &no })
		}
	case "end":
		if task.Stop {
			w.observe(task, func(st *model.TaskStatus) { st.State = model.TaskKilled })
		}
	}
}

// recover makes sick tasks healthy again.
func (w *world) recover() {
	for _, task := range w.input().Tasks {
		if task.Live() && task.Status.State == model.TaskRunning {
			w.observe(task, running(w))
		}
	}
}
