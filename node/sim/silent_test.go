package sim

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"
)

// A leader whose cable is pulled: nobody refuses a connection, so the others must agree that it is silent. Left
// to their random timeouts they would wait up to twice as long, and now and then split the vote and wait again.
func TestSilentLeaderIsReplacedInTurn(t *testing.T) {
	const limit = 900 * time.Millisecond
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			dir := scratch(t)
			leak := bubble(t, func() {
				c := newCluster(seed+1, dir, slog.New(slog.DiscardHandler), func(string) {}, t.Errorf)
				defer c.stop()
				if err := c.up(); err != nil {
					t.Error(err)
					return
				}
				ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
				defer cancel()
				if err := setUp(ctx, c); err != nil {
					t.Error(err)
					return
				}
				pause(ctx, 3*time.Second)
				old := c.leader()
				c.isolate(old, true, true, true)
				began := time.Now()
				for led := false; !led; pause(ctx, 5*time.Millisecond) {
					for _, m := range c.masters() {
						led = led || m != old && m.running().node.IsLeader()
					}
					if ctx.Err() != nil {
						t.Error("nobody else leads")
						return
					}
				}
				if took := time.Since(began); took > limit {
					t.Errorf("%v of simulated time without a leader", took)
				}
			})
			if leak != nil {
				t.Error(leak)
			}
		})
	}
}
