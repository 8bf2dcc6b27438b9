package deploy

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"appliance/node/model"
	"appliance/node/replay"
	"appliance/raft/command"
)

// Users deploy and scale, nodes drain, tasks do what tasks do.
func TestStepReplaysExactly(t *testing.T) {
	replay.Exactly(t, func(r *rand.Rand, say replay.Say) {
		w := newWorld(t, 4)
		w.deploy(model.AppSpec{}, 5)
		for range 80 {
			w.now = w.now.Add(time.Duration(r.IntN(20)) * time.Second)
			switch r.IntN(12) {
			case 0:
				w.deploy(model.AppSpec{Upgrade: model.UpgradePolicy{MinHealth: replay.One(r, 0, 0.5, 1), MaxOver: replay.One(r, 0, 0.5, 1)}}, r.IntN(8))
			case 1:
				w.scale(r.IntN(12))
			case 2:
				w.apply(&command.SetNodeDrain{Node: replay.One(r, w.nodes...), Drain: r.IntN(2) == 0, At: w.now})
			case 3:
				w.now = w.now.Add(DefaultDeadline)
			}
			w.place()
			w.agents(func(*model.Task) bool { return r.IntN(4) > 0 })
			plan := Step(w.input())
			for _, c := range plan.Commands {
				say(c)
				w.apply(c)
			}
			say(fmt.Sprint("again at ", plan.Next.Unix(), " of ", len(w.input().Tasks)))
		}
	})
}
