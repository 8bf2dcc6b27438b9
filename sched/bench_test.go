package sched

import (
	"fmt"
	"testing"

	"appliance/node/model"
	"appliance/raft/state"
)

// BenchmarkMatch places tasks on 5,000 agents; placements/s is the figure of
// the design's target.
func BenchmarkMatch(b *testing.B) {
	const nodes = 5000
	for _, shape := range []struct{ apps, tasks int }{{1, 10000}, {100, 100}, {1000, 10}} {
		b.Run(fmt.Sprintf("%dx%d", shape.apps, shape.tasks), func(b *testing.B) {
			var pending []Pending
			env := &model.Environment{Name: "test", Selector: map[string]string{"env": "test"}}
			for i := range shape.apps {
				spec := model.AppSpec{ID: fmt.Sprint("/test/a", i), Resources: model.Resources{CPUs: 0.5, Memory: 64}, Ports: []model.Port{{ContainerPort: 80}}}
				for _, p := range queue(spec, shape.tasks) {
					p.Env = env
					pending = append(pending, p)
				}
			}
			placed := 0
			for b.Loop() {
				b.StopTimer()
				offers := make([]Offer, nodes)
				for i := range offers {
					offers[i] = agent(fmt.Sprintf("n%04d", i), 16, "env=test")
				}
				b.StartTimer()
				placed += len(Match(pending, offers, now).Placements)
			}
			b.ReportMetric(float64(placed)/b.Elapsed().Seconds(), "placements/s")
		})
	}
}

// BenchmarkRound is what the leader pays to look at a large cluster in which
// nothing has changed.
func BenchmarkRound(b *testing.B) {
	const nodes, apps, each = 1000, 500, 20
	tasks := 0
	s := state.New()
	tx := s.Begin()
	state.Environments.Put(tx, 1, &model.Environment{Name: "test"})
	for i := range nodes {
		state.Nodes.Put(tx, 1, agent(fmt.Sprintf("n%04d", i), 16).Node)
	}
	for i := range apps {
		id := fmt.Sprintf("/test/a%03d", i)
		state.Apps.Put(tx, 1, &model.App{ID: id, Env: "test", Release: 1, Stable: 1, Instances: each})
		state.Releases.Put(tx, 1, &model.Release{App: id, Version: 1, Spec: model.AppSpec{ID: id}})
		for j := range each {
			tasks++
			state.Tasks.Put(tx, 1, &model.Task{ID: fmt.Sprintf("%s.%d", id, j), App: id, Release: 1, Env: "test", Node: fmt.Sprintf("n%04d", tasks%nodes),
				Status: model.TaskStatus{State: model.TaskRunning}})
		}
	}
	tx.Commit(1)
	t := &term{Loop: &Loop{Store: s}, measured: map[string]bool{}}
	for b.Loop() {
		if commands, _ := t.wishes(s.Snapshot(), now); len(commands) > 0 {
			b.Fatalf("%T", commands[0])
		}
	}
	b.ReportMetric(float64(tasks), "tasks")
}
