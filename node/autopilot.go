package node

import (
	"context"
	"fmt"
	"slices"
	"time"

	"appliance/node/model"
	"appliance/raft"
	"appliance/raft/autopilot"
	"appliance/raft/command"
	"appliance/raft/state"
)

// votersEvery is how often the leader looks after who votes. Changes of the
// node table wake it earlier.
const votersEvery = time.Second

// keepVoters does on the leader what autopilot.Plan says, one look after the
// other.
func (n *Node) keepVoters(ctx context.Context) {
	seen := sightings{}
	for ctx.Err() == nil {
		snap := n.store.Snapshot()
		if !n.founding() {
			n.alignVoters(ctx, snap, seen)
			n.spread(ctx)
		}
		wait, cancel := context.WithTimeout(ctx, votersEvery)
		_ = snap.Wait(wait, state.Nodes.Name)
		cancel()
	}
}

func (n *Node) alignVoters(ctx context.Context, snap *state.Snapshot, seen sightings) {
	members, err := n.voter.Members(ctx)
	if err != nil {
		return
	}
	now := time.Now()
	cluster := n.cluster()
	set := cluster.Membership()
	plan := autopilot.Plan(logMembers(members), n.logMasters(snap, members, seen, now), n.cfg.ID,
		autopilot.Settings{MaxVoters: set.MaxVoters, DeadAfter: time.Duration(set.DeadAfter)}, now)
	for _, c := range plan {
		if err := n.carryOut(ctx, c); err != nil && ctx.Err() == nil {
			n.log.Warn("change of the masters failed, trying again", "change", c.Op, "master", nodeName(snap, c.ID), "err", err)
			return
		}
		n.log.Info("change of the masters", "change", c.Op, "master", nodeName(snap, c.ID), "id", c.ID, "because", c.Why)
	}
	n.noteVoters(ctx)
}

func (n *Node) carryOut(ctx context.Context, c autopilot.Change) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	switch c.Op {
	case autopilot.Add, autopilot.Readdr:
		return n.voter.AddStandby(ctx, c.ID, c.Addr)
	case autopilot.Promote:
		return n.voter.Promote(ctx, c.ID, c.Addr)
	case autopilot.Demote:
		return n.voter.Demote(ctx, c.ID)
	case autopilot.Remove:
		return n.voter.RemoveServer(ctx, c.ID)
	case autopilot.Transfer:
		return n.voter.TransferLeadership(ctx, c.ID, c.Addr)
	}
	return fmt.Errorf("change %q is not known", c.Op)
}

func logMembers(members []raft.Member) []autopilot.Member {
	var out []autopilot.Member
	for _, m := range members {
		out = append(out, autopilot.Member{ID: m.ID, Addr: m.Addr, Voter: m.Voter, Runs: m.Answers})
	}
	return out
}

// logMasters joins what the state, gossip and the log itself know of those
// that should be members.
func (n *Node) logMasters(snap *state.Snapshot, members []raft.Member, seen sightings, now time.Time) []autopilot.Master {
	heard := map[string]raft.Member{}
	for _, m := range members {
		heard[m.ID] = m
	}
	for _, m := range n.gossip.Members() {
		if m.Alive {
			h := heard[m.ID]
			h.Answers = true
			heard[m.ID] = h
		}
	}
	var out []autopilot.Master
	for node := range state.Nodes.All(snap) {
		if node.Role != model.RoleMaster || node.Status == model.NodeLeft {
			continue
		}
		h := heard[node.ID]
		alive := h.Answers || node.ID == n.cfg.ID
		out = append(out, autopilot.Master{ID: node.ID, Addr: withPort(node.Addr), Alive: alive, Since: seen.since(node.ID, alive, now),
			CaughtUp: h.CaughtUp, Unfit: len(h.Unfit) > 0})
	}
	return out
}

// sightings remembers since when a master has been alive or dead, as this
// leader saw it.
type sightings map[string]sighting

type sighting struct {
	alive bool
	since time.Time
}

func (s sightings) since(id string, alive bool, now time.Time) time.Time {
	if old, ok := s[id]; !ok || old.alive != alive {
		s[id] = sighting{alive, now}
	}
	return s[id].since
}

// noteVoters writes into the state who votes, so that every node can say.
func (n *Node) noteVoters(ctx context.Context) {
	servers, err := n.voter.Servers()
	if err != nil {
		return
	}
	voters := voterIDs(servers)
	if snap := n.store.Snapshot(); slices.Equal(voters, n.cluster().Voters) || command.ClusterLevel(snap) < command.Level(&command.SetAutopilot{}) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := command.Do(ctx, n.proposer, &command.SetAutopilot{Voters: voters, At: time.Now().UTC()}); err != nil {
		n.log.Debug("who votes is not noted yet", "err", err)
	}
}

func voterIDs(servers []raft.Server) []string {
	out := []string{}
	for _, s := range servers {
		if s.Voter {
			out = append(out, s.ID)
		}
	}
	slices.Sort(out)
	return out
}

// voters are the ids of the masters that vote: from the log on a master, as
// the leader noted elsewhere, and if it has not, all masters.
func (n *Node) voters() []string {
	if n.voter != nil {
		if servers, err := n.voter.Servers(); err == nil && len(servers) > 0 {
			return voterIDs(servers)
		}
	}
	if noted := n.cluster().Voters; noted != nil {
		return noted
	}
	var out []string
	for node := range state.Nodes.All(n.store.Snapshot()) {
		if node.Role == model.RoleMaster && node.Status != model.NodeLeft {
			out = append(out, node.ID)
		}
	}
	return out
}

// Votes implements api.Cluster.
func (c apiCluster) Votes() []string { return c.n.voters() }

func nodeName(snap *state.Snapshot, id string) string {
	if node := state.Nodes.Get(snap, id); node != nil {
		return node.Name
	}
	return id
}
