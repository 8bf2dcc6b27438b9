package node

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"time"

	"appliance/node/api"
	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
)

// upgrade implements api.Upgrader.
type upgrade struct{ n *Node }

// Status implements api.Upgrader: what every node runs, and what is missing.
func (u upgrade) Status(ctx context.Context) api.UpgradeStatus {
	snap := u.n.store.Snapshot()
	out := api.UpgradeStatus{Level: command.ClusterLevel(snap), Nodes: u.n.versions(ctx), Held: heldUntil(snap, time.Now())}
	out.Possible = math.MaxInt
	newest := out.Level
	for _, v := range out.Nodes {
		if v.Status != string(model.NodeLeft) {
			out.Possible, newest = min(out.Possible, v.Speaks), max(newest, v.Speaks)
		}
	}
	if out.Possible == math.MaxInt {
		out.Possible = out.Level // no node is known yet
	}
	for _, v := range out.Nodes {
		switch {
		case v.Status == string(model.NodeLeft):
		case v.Speaks < newest:
			out.Missing = append(out.Missing, fmt.Sprintf("%s runs %s, which speaks level %d: install a newer version there", v.Name, cmp.Or(v.Version, "an older version"), v.Speaks))
		case !v.Answers && v.Status == string(model.NodeReady) && newest > out.Level:
			out.Missing = append(out.Missing, v.Name+" does not answer: it is not known what it runs now")
		}
	}
	return out
}

// Finish implements api.Upgrader: it raises the level at once.
func (u upgrade) Finish(ctx context.Context) (int, error) {
	st := u.Status(ctx)
	if st.Possible <= st.Level {
		e := model.Errorf(model.CodeConflict, "there is no upgrade to finish")
		if len(st.Missing) > 0 {
			return st.Level, e.Because("%s", st.Missing[0]).Try("see: appliance upgrade")
		}
		return st.Level, e.Because("the cluster has protocol level %d, and no node speaks a higher one", st.Level)
	}
	for _, v := range st.Nodes {
		if !v.Answers && v.Status == string(model.NodeReady) {
			return st.Level, model.Errorf(model.CodeUnavailable, "the upgrade cannot be finished now").
				Because("%s does not answer, and an older binary there would be locked out", v.Name).Try("start it, or wait until it counts as down, and try again")
		}
	}
	if err := raise(ctx, u.n.proposer, st); err != nil {
		return st.Level, err
	}
	return st.Possible, u.Resume(ctx)
}

// Hold implements api.Upgrader.
func (u upgrade) Hold(ctx context.Context, d time.Duration) (time.Time, error) {
	res, err := command.Do(ctx, u.n.proposer, &command.TakeLease{Name: holdLease, Holder: holdHolder, At: time.Now().UTC(), TTL: d})
	if err != nil {
		return time.Time{}, err
	}
	var l model.Lease
	err = res.Decode(&l)
	return l.Expires, err
}

// Resume implements api.Upgrader.
func (u upgrade) Resume(ctx context.Context) error {
	snap := u.n.store.Snapshot()
	held := heldUntil(snap, time.Now())
	if held.IsZero() {
		return nil
	}
	_, err := command.Do(ctx, u.n.proposer, release(snap, held))
	return err
}

// release ends the hold until that time. It is named by its end, so that a late attempt does not end one
// that an operator has set since; binaries of level 1 do not know how to.
func release(snap *state.Snapshot, held time.Time) *command.ReleaseLease {
	c := &command.ReleaseLease{Name: holdLease, Holder: holdHolder, Expires: held}
	if command.Level(c) > command.ClusterLevel(snap) {
		c.Expires = time.Time{}
	}
	return c
}

// heldUntil is when the hold on the level ends, zero if there is none.
func heldUntil(snap *state.Snapshot, now time.Time) time.Time {
	if l := state.Leases.Get(snap, holdLease); l != nil && l.Expires.After(now) {
		return l.Expires
	}
	return time.Time{}
}

// raise proposes the highest level that all nodes speak.
func raise(ctx context.Context, p command.Proposer, st api.UpgradeStatus) error {
	c := &command.RaiseLevel{Level: st.Possible, At: time.Now().UTC()}
	for _, v := range st.Nodes {
		c.Nodes = append(c.Nodes, command.NodeLevel{Node: v.ID, Level: v.Speaks})
	}
	_, err := command.Do(ctx, p, c)
	return err
}

// keepLevel raises the cluster's level when all nodes have spoken a higher one for a while and nobody
// holds it back.
func (n *Node) keepLevel(ctx context.Context) {
	soak := soak{}
	for ; ctx.Err() == nil; pause(ctx, levelEvery) {
		snap := n.store.Snapshot()
		level := command.ClusterLevel(snap)
		if level >= command.Speaks || n.founding() {
			continue // a leader cannot raise beyond what it speaks itself
		}
		st := upgrade{n}.Status(ctx)
		if n.soaked(&soak, st) && ctx.Err() == nil {
			try, cancel := context.WithTimeout(ctx, levelEvery)
			err := raise(try, n.proposer, st)
			cancel()
			n.noteRaise(st.Possible, err)
		}
	}
}

// soak is since when a level could have been raised to.
type soak struct {
	level int
	since time.Time
}

// step says whether the level has been possible for long enough.
func (s *soak) step(now time.Time, possible int) bool {
	if possible != s.level {
		s.level, s.since = possible, now
	}
	return now.Sub(s.since) >= levelSoak
}

func (n *Node) soaked(s *soak, st api.UpgradeStatus) bool {
	possible := st.Possible
	if len(st.Missing) > 0 || !st.Held.IsZero() {
		possible = st.Level
	}
	before := s.level
	done := s.step(time.Now(), possible)
	if possible > st.Level && before != possible {
		n.log.Info("all nodes speak a higher protocol level", "level", possible, "raised_in", levelSoak)
	}
	return done && possible > st.Level
}

func (n *Node) noteRaise(level int, err error) {
	if err != nil {
		n.log.Warn("the protocol level is not raised, trying again", "level", level, "err", err)
		return
	}
	n.log.Info("the protocol level is raised", "level", level)
}
