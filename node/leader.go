package node

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"time"

	"appliance/discovery/consul"
	"appliance/node/model"
	"appliance/raft"
	"appliance/raft/command"
	"appliance/raft/durable"
	"appliance/raft/state"
	"appliance/sched"
)

// openLeader registers what only the leader does.
func (n *Node) openLeader(context.Context) error {
	if n.voter == nil {
		return nil
	}
	if n.founding() && !n.voter.HasState() {
		if err := n.voter.Bootstrap([]raft.Server{{ID: n.cfg.ID, Addr: n.cfg.wireAddr(), Voter: true}}); err != nil {
			return err
		}
	}
	n.voter.OnLeadership(n.birth)
	n.voter.OnLeadership(n.tellLeader)
	n.voter.OnLeadership(n.keepVoters)
	// Both end with ctx only.
	n.voter.OnLeadership(func(ctx context.Context) { _ = n.scheduler().Run(ctx) })
	reaper := &consul.Reaper{Store: n.store, Catalog: n.catalog, Proposer: n.proposer, Log: n.log}
	n.voter.OnLeadership(func(ctx context.Context) { _ = reaper.Run(ctx) })
	return nil
}

// founding reports whether the cluster's first entry is still to be written.
func (n *Node) founding() bool {
	path, second, _ := n.cfg.twice(birthFile)
	_, err := os.Stat(path)
	_, copyErr := os.Stat(second)
	return err == nil || copyErr == nil
}

// birth writes the first entries of a new cluster's log, once.
func (n *Node) birth(ctx context.Context) {
	for ctx.Err() == nil {
		err := n.writeBirthEntries(ctx)
		if err == nil {
			return
		}
		n.log.Error("the cluster's first entry cannot be written, trying again", "err", err)
		pause(ctx, time.Second)
	}
}

func (n *Node) writeBirthEntries(ctx context.Context) error {
	first, err := readBirth(n.cfg)
	if first == nil || err != nil {
		return err
	}
	now := time.Now().UTC()
	var known *model.Error
	if _, err := command.Do(ctx, n.proposer, first); err != nil && !(errors.As(err, &known) && known.Code == model.CodeConflict) {
		return err
	}
	self := n.self(ctx)
	self.JoinedAt, self.Status, self.StatusSince = now, model.NodeReady, now
	if _, err := command.Do(ctx, n.proposer, &command.RegisterNode{Node: self, At: now}); err != nil {
		return err
	}
	path, second, _ := n.cfg.twice(birthFile)
	return durable.RemoveTwice(path, second)
}

// tellLeader sees to it that the log says that this node leads, for as long as it does: the word of a leader whose
// time was short can come late, by way of its successor.
func (n *Node) tellLeader(ctx context.Context) {
	for ctx.Err() == nil {
		snap := n.store.Snapshot()
		if toldLeader(snap) == n.cfg.ID {
			_ = snap.Wait(ctx, state.Clusters.Name)
		} else if !n.founding() {
			if _, err := command.Do(ctx, n.proposer, &command.SetLeader{Node: n.cfg.ID, At: time.Now().UTC()}); err != nil {
				n.log.Debug("leadership is not noted yet", "err", err)
			}
		}
		pause(ctx, tellPause) // two that both believe to lead differ for a moment only
	}
}

const tellPause = 100 * time.Millisecond

// toldLeader is who leads as the log says, "" if it says nothing yet.
func toldLeader(snap *state.Snapshot) string {
	for c := range state.Clusters.All(snap) {
		return c.Leader
	}
	return ""
}

// spreadAfter is how long a leader must have held the VIP before it hands the
// leadership over, and how long its successor must have been alive: right
// after a failure neither is settled.
const spreadAfter = 5 * time.Second

// spread keeps leadership and VIP on different masters, so that the loss of
// one machine costs one thing: either connections through the VIP or a moment
// without changes, not both.
func (n *Node) spread(ctx context.Context) {
	if !n.holdsVIP(spreadAfter) {
		return
	}
	to, err := n.voter.Successor(ctx)
	if err != nil {
		return
	}
	if alive, since := n.gossip.Alive(to.ID); !alive || time.Since(since) < spreadAfter {
		return
	}
	try, cancel := context.WithTimeout(ctx, spreadAfter)
	defer cancel()
	err = n.voter.TransferLeadership(try, to.ID, to.Addr)
	if ctx.Err() != nil {
		err = nil // our own term has ended: that is what we wanted
	}
	n.note("leadership moves away from the VIP", n.cfg.Name, err)
}

func (n *Node) note(what, who string, err error) {
	if err != nil {
		n.log.Warn(what+" failed, trying again", "master", who, "err", err)
		return
	}
	n.log.Info(what, "master", who)
}

func (n *Node) scheduler() *sched.Loop {
	return &sched.Loop{Store: n.store, Proposer: n.proposer, Self: n.cfg.ID, NewID: func() string { return lower(rand.Text()[:8]) },
		Log: n.log, Liveness: n.gossip, Receipts: n.receipts, EnsureVolume: n.volumes.ensure}
}
