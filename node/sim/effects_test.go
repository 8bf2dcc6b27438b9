package sim

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"appliance/node/model"
	"appliance/raft/command"
)

// Each fault by itself on a cluster that is well, with a little traffic: it does what it is for, which is 0
// without it.
func TestEveryFaultHasItsEffect(t *testing.T) {
	dir := scratch(t)
	leak := bubble(t, func() {
		c := newCluster(3, dir, slog.New(slog.DiscardHandler), func(string) {}, t.Errorf)
		defer c.stop()
		if err := c.up(); err != nil {
			t.Error(err)
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), maxTime)
		defer cancel()
		if err := setUp(ctx, c); err != nil {
			t.Error(err)
			return
		}
		begun := c.effects()
		traffic(c)
		for e, n := range c.effects() {
			if n > begun[e] && e != overtaken && e != astray {
				t.Errorf("without a fault there are %d %s", n-begun[e], e)
			}
		}
		r := rand.New(rand.NewPCG(1, 1))
		for _, f := range faults {
			for c.misplaced() != "" && ctx.Err() == nil {
				pause(ctx, 100*time.Millisecond)
			}
			missing := f.does
			for try := 0; len(missing) > 0 && try < 5; try++ { // two machines may have nothing to do with each other
				a, b := c.pick(r, f.where)
				begun = c.effects()
				f.begin(c, a, b)
				traffic(c)
				if f.end != nil {
					f.end(c, a, b)
				}
				did := c.effects()
				missing = slices.DeleteFunc(slices.Clone(f.does), func(e effect) bool { return did[e] > begun[e] })
				c.heal()
			}
			if len(f.does) == 0 || len(missing) > 0 {
				t.Errorf("%s has no effect: no %s", f.name, missing)
			}
		}
		if ctx.Err() != nil {
			t.Error("the masters are not well again: " + c.misplaced())
		}
	})
	if leak != nil {
		t.Error(leak)
	}
}

// traffic writes by all machines for more than a second.
func traffic(c *cluster) {
	ctx, cancel := context.WithTimeout(context.Background(), 1200*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	for _, m := range c.machines {
		wg.Go(func() {
			for pause(ctx, 100*time.Millisecond) == nil {
				if p := m.running(); p != nil {
					once, done := context.WithTimeout(ctx, time.Second)
					propose(once, p.core, &command.RecordEvent{Event: model.Event{Kind: "sim", Text: fmt.Sprint(c.newID(), string(make([]byte, 200)))}})
					done()
				}
			}
		})
	}
	wg.Wait()
}
