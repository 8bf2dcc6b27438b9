package node

import (
	"context"
	"slices"
	"time"

	"appliance/node/model"
	"appliance/raft"
	"appliance/raft/autopilot"
	"appliance/raft/command"
	"appliance/raft/state"
	"appliance/raft/voters"
)

// votersEvery is how often the leader looks after who votes. Changes of the
// node table wake it earlier.
const votersEvery = time.Second

// keepVoters has the autopilot keep the masters as they should be while this
// node leads.
func (n *Node) keepVoters(ctx context.Context) {
	keeper := &voters.Keeper{Members: n.voter, Self: n.cfg.ID, Hears: n.gossip.Answering, Log: n.log,
		Addr: func(m *model.Node) string { return withPort(m.Addr) }}
	for ctx.Err() == nil {
		snap := n.store.Snapshot()
		if !n.founding() {
			cluster := n.cluster()
			set := cluster.Membership()
			keeper.Look(ctx, snap, autopilot.Settings{MaxVoters: set.MaxVoters, DeadAfter: time.Duration(set.DeadAfter)})
			n.noteVoters(ctx)
			n.spread(ctx)
		}
		wait, cancel := context.WithTimeout(ctx, votersEvery)
		_ = snap.Wait(wait, state.Nodes.Name)
		cancel()
	}
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
