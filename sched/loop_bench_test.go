package sched_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"testing"

	"appliance/node/model"
	"appliance/raft/state"
	"appliance/sched"
	"appliance/sched/schedtest"
)

// BenchmarkLoop creates and places tasks through the state, without disks:
// what is left of placements/s when every decision is encoded and applied.
func BenchmarkLoop(b *testing.B) {
	const nodes, tasks = 1000, 5000
	for b.Loop() {
		b.StopTimer()
		c := schedtest.New(b)
		for i := range nodes {
			c.AddAgent(b, fmt.Sprintf("n%04d", i), "test")
		}
		l := &sched.Loop{Store: c.Store, Proposer: c, NewID: c.NewID, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		b.StartTimer()
		go func() { defer close(done); _ = l.Run(ctx) }()
		c.Deploy(b, model.AppSpec{ID: "/test/a", Instances: tasks, Resources: model.Resources{CPUs: 0.1, Memory: 16}, Ports: []model.Port{{ContainerPort: 80}}})
		c.Eventually(b, "all are placed", func(s *state.Snapshot) bool {
			for t := range state.Tasks.By(s, "waiting", "yes") {
				_ = t
				return false
			}
			return state.Tasks.Count(s) == tasks
		})
		cancel()
		<-done
	}
	b.ReportMetric(float64(tasks*b.N)/b.Elapsed().Seconds(), "placements/s")
}
