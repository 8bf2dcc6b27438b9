package consul

import (
	"context"
	"log/slog"
	"time"

	"appliance/discovery"
	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
)

// Reaper ends sessions whose time is over or whose node or checks have failed.
// Only the leader may run it.
type Reaper struct {
	Store    *state.Store
	Catalog  *discovery.Watcher
	Proposer command.Proposer
	Log      *slog.Logger
}

// reapRetry is the pause after the log did not take a verdict, and the longest
// pause at all.
const (
	reapRetry = time.Second
	reapIdle  = time.Minute
)

// sighting is when this leader first saw a renewal, on its own clock: that of
// the node which took the renewal may be minutes off.
type sighting struct{ renewed, at time.Time }

// Run reaps until ctx ends. No session expires earlier than its TTL after Run
// began: renewals may have failed while there was no leader.
func (r *Reaper) Run(ctx context.Context) error {
	seen := map[string]sighting{}
	for {
		snap := r.Store.Snapshot()
		// A leader that has just read its log may have the table of an earlier
		// state, without nodes that sessions are bound to.
		if err := r.Catalog.Fresh(ctx); err != nil {
			return err
		}
		t, changed := r.Catalog.View()
		next := r.reap(ctx, snap, t, seen)
		if err := r.pause(ctx, snap, changed, next); err != nil {
			return err
		}
	}
}

// reap ends what must end now and tells how long nothing else will.
func (r *Reaper) reap(ctx context.Context, snap *state.Snapshot, t *discovery.Table, seen map[string]sighting) time.Duration {
	next := reapIdle
	for id := range seen {
		if state.Sessions.Get(snap, id) == nil {
			delete(seen, id)
		}
	}
	for row := range state.Sessions.All(snap) {
		now := time.Now()
		last := seen[row.ID]
		if !last.renewed.Equal(row.RenewedAt) || last.at.IsZero() {
			last = sighting{row.RenewedAt, now}
			seen[row.ID] = last
		}
		why, left := verdict(t, row, now, last.at)
		if why == "" {
			next = min(next, left)
			continue
		}
		inner, cancel := context.WithTimeout(ctx, writeTimeout)
		_, err := command.Do(inner, r.Proposer, &command.DestroySession{ID: row.ID, At: now, IfModified: row.ModifyIndex})
		cancel()
		if err != nil {
			next = min(next, reapRetry)
		} else if r.Log != nil {
			r.Log.Info("session ended", "session", row.ID, "name", row.Name, "node", row.Node, "why", why)
		}
	}
	return next
}

// verdict says why a session must end, or how long its time still runs. A
// session lives for twice its TTL after the leader saw the last renewal, as in
// Consul: the renewal may have been long on its way.
func verdict(t *discovery.Table, row *model.Session, now, renewed time.Time) (why string, left time.Duration) {
	if why := sessionEnds(t, row); why != "" {
		return why, 0
	}
	if row.TTL <= 0 {
		return "", reapIdle
	}
	left = renewed.Add(2 * row.TTL).Sub(now)
	if left <= 0 {
		return "the TTL is over", 0
	}
	return "", left
}

func (r *Reaper) pause(ctx context.Context, snap *state.Snapshot, changed <-chan struct{}, d time.Duration) error {
	inner, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		snap.Wait(inner, state.Sessions.Name)
	}()
	select {
	case <-done:
	case <-changed:
		cancel()
		<-done
	}
	return ctx.Err()
}
