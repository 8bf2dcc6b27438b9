package sim

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"appliance/node/model"
	"appliance/raft/command"
)

// A leader that falls silent is replaced by one election: masters that miss it do not split the vote, and the
// first to ask for votes is one that has all entries.
func TestSilentLeaderIsReplacedInTurn(t *testing.T) {
	for seed := range uint64(12) {
		for _, behind := range []int{-1, 0, 1} { // the follower that misses the last entry
			t.Run(fmt.Sprintf("%d/%d", seed, behind), func(t *testing.T) {
				t.Parallel()
				dir := scratch(t)
				if leak := bubble(t, func() { silence(t, seed+1, dir, behind) }); leak != nil {
					t.Error(leak)
				}
			})
		}
	}
}

func silence(t *testing.T, seed uint64, dir string, behind int) {
	const limit = 900 * time.Millisecond
	c := newCluster(seed, dir, slog.New(slog.DiscardHandler), func(string) {}, t.Errorf)
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
	others := slices.DeleteFunc(slices.Clone(c.masters()), func(m *machine) bool { return m == old })
	if behind >= 0 {
		c.net.Cut(old.name, others[behind].name, true)
		if _, err := propose(ctx, old.running().core, &command.PutEnvironment{Environment: model.Environment{Name: "last"}}); err != nil {
			t.Error(err)
		}
	}
	c.isolate(old, true, true, true)
	began := time.Now()
	for led := false; !led; pause(ctx, 5*time.Millisecond) {
		for _, m := range others {
			led = led || m.running().node.IsLeader()
		}
		if ctx.Err() != nil {
			t.Error("nobody else leads")
			return
		}
	}
	if took := time.Since(began); took > limit {
		t.Errorf("%v of simulated time without a leader", took)
	}
}
