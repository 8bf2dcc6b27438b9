package sched

import (
	"fmt"
	"testing"

	"appliance/node/model"
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
