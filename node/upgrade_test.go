package node

import (
	"testing"
	"time"

	"appliance/discovery/discoverytest"
	"appliance/node/model"
	"appliance/raft/command"
)

func TestLateResumeLeavesALaterHold(t *testing.T) {
	for _, tc := range []struct {
		name  string
		level int
		later bool // whether the later hold goes on
	}{
		{"level 1, whose binaries know no ends", 1, false},
		{"level 2", 2, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := discoverytest.New()
			c.Must(&command.InitCluster{Cluster: model.Cluster{ID: "c1", Name: "house", Level: tc.level}})
			now := time.Now().UTC()
			hold := &command.TakeLease{Name: holdLease, Holder: holdHolder, At: now, TTL: time.Hour}
			c.Must(hold)
			snap := c.Store.Snapshot()
			late := release(snap, heldUntil(snap, now))
			if got := command.Level(late); got > tc.level {
				t.Fatalf("the release needs level %d", got)
			}
			hold.TTL = 2 * time.Hour
			c.Must(hold)
			c.Must(late)
			if got := !heldUntil(c.Store.Snapshot(), now).IsZero(); got != tc.later {
				t.Errorf("the later hold goes on: %v", got)
			}
			snap = c.Store.Snapshot()
			c.Must(release(snap, heldUntil(snap, now)))
			if until := heldUntil(c.Store.Snapshot(), now); !until.IsZero() {
				t.Errorf("held until %v after it was released", until)
			}
		})
	}
}
