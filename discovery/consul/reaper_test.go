package consul_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"appliance/discovery"
	"appliance/discovery/consul"
	"appliance/discovery/discoverytest"
	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
)

func TestReaper(t *testing.T) {
	tests := []struct {
		name string
		do   func(*discoverytest.Cluster, *discoverytest.Liveness)
		want map[string]bool // sessions that are left
	}{
		{"within twice the TTL", func(*discoverytest.Cluster, *discoverytest.Liveness) { time.Sleep(19 * time.Second) }, map[string]bool{"ttl": true, "node": true, "plain": true}},
		{"TTL over", func(*discoverytest.Cluster, *discoverytest.Liveness) { time.Sleep(21 * time.Second) }, map[string]bool{"node": true, "plain": true}},
		{"renewed", func(c *discoverytest.Cluster, _ *discoverytest.Liveness) {
			time.Sleep(15 * time.Second)
			c.Must(&command.RenewSession{ID: "ttl", At: time.Now()})
			time.Sleep(15 * time.Second)
		}, map[string]bool{"ttl": true, "node": true, "plain": true}},
		{"renewed through a node whose clock is behind", func(c *discoverytest.Cluster, _ *discoverytest.Liveness) {
			time.Sleep(15 * time.Second)
			c.Must(&command.RenewSession{ID: "ttl", At: time.Now().Add(-2 * time.Minute)})
			time.Sleep(15 * time.Second)
		}, map[string]bool{"ttl": true, "node": true, "plain": true}},
		{"TTL over, renewed through a node whose clock is ahead", func(c *discoverytest.Cluster, _ *discoverytest.Liveness) {
			c.Must(&command.RenewSession{ID: "ttl", At: time.Now().Add(2 * time.Minute)})
			time.Sleep(21 * time.Second)
		}, map[string]bool{"node": true, "plain": true}},
		{"node suspected", func(_ *discoverytest.Cluster, l *discoverytest.Liveness) {
			l.Kill("ms1", time.Now())
			time.Sleep(time.Second)
		}, map[string]bool{"ttl": true, "plain": true}},
		{"node left", func(c *discoverytest.Cluster, _ *discoverytest.Liveness) {
			c.Status("ms1", model.NodeLeft)
			time.Sleep(time.Second)
		}, map[string]bool{"ttl": true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, l := discoverytest.New(), discoverytest.NewLiveness()
				c.Node("mm1", "10.0.0.1", model.RoleMaster)
				c.Node("ms1", "10.0.0.11", model.RoleAgent)
				for _, row := range []model.Session{
					{ID: "ttl", Node: "mm1", TTL: 10 * time.Second, RenewedAt: time.Now(), LockDelay: time.Second},
					{ID: "node", Node: "ms1", Checks: []string{discovery.SerfHealth}},
					{ID: "plain", Node: "ms1"},
				} {
					c.Must(&command.PutSession{Session: row})
				}
				w := discovery.NewWatcher(c.Store, l)
				r := &consul.Reaper{Store: c.Store, Catalog: w, Proposer: c}
				ctx, cancel := context.WithCancel(t.Context())
				go w.Run(ctx)
				go r.Run(ctx)
				tt.do(c, l)
				synctest.Wait()
				left := map[string]bool{}
				for row := range state.Sessions.All(c.Store.Snapshot()) {
					left[row.ID] = true
				}
				if len(left) != len(tt.want) {
					t.Errorf("left %v, want %v", left, tt.want)
				}
				for id := range tt.want {
					if !left[id] {
						t.Errorf("%s was ended", id)
					}
				}
				cancel()
				synctest.Wait()
			})
		})
	}
}

// A leader that has just started knows the sessions before its catalog knows
// their nodes.
func TestReaperWaitsForTheCatalog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l := discoverytest.New(), discoverytest.NewLiveness()
		w := discovery.NewWatcher(c.Store, l)
		c.Node("mm1", "10.0.0.1", model.RoleMaster)
		c.Must(&command.PutSession{Session: model.Session{ID: "held", Node: "mm1"}})
		ctx, cancel := context.WithCancel(t.Context())
		go (&consul.Reaper{Store: c.Store, Catalog: w, Proposer: c}).Run(ctx)
		synctest.Wait()
		go w.Run(ctx)
		synctest.Wait()
		if state.Sessions.Get(c.Store.Snapshot(), "held") == nil {
			t.Error("the session was ended, though its node is there")
		}
		cancel()
		synctest.Wait()
	})
}
