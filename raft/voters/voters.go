// Package voters has the leader do what autopilot.Plan says: look at the masters, change the log's members,
// look again.
package voters

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"appliance/node/model"
	"appliance/raft"
	"appliance/raft/autopilot"
	"appliance/raft/state"
)

// changeTimeout bounds one change: longer than an election.
const changeTimeout = 10 * time.Second

// Log is whose members are changed: raft.Node.
type Log interface {
	Members(ctx context.Context) ([]raft.Member, error)
	AddStandby(ctx context.Context, id, addr string) error
	Promote(ctx context.Context, id, addr string) error
	Demote(ctx context.Context, id string) error
	RemoveServer(ctx context.Context, id string) error
	TransferLeadership(ctx context.Context, id, addr string) error
}

// Keeper keeps the masters in the log as they should be. It serves one goroutine and one leadership: what
// another leader saw of the masters is not known to it.
type Keeper struct {
	Members Log
	Self    string                   // node id
	Hears   func() []string          // who answers in gossip, by node id
	Addr    func(*model.Node) string // host:port of a master for the log
	Log     *slog.Logger

	seen map[string]sighting
}

// sighting is since when a master has been alive or dead, as this leader saw it.
type sighting struct {
	alive bool
	since time.Time
}

// Look makes the changes that are due and returns them. It stops at the first that fails: the next look
// tries again.
func (k *Keeper) Look(ctx context.Context, snap *state.Snapshot, s autopilot.Settings) (made []autopilot.Change) {
	members, err := k.Members.Members(ctx)
	if err != nil {
		return nil
	}
	now := time.Now()
	var list []autopilot.Member
	for _, m := range members {
		list = append(list, autopilot.Member{ID: m.ID, Addr: m.Addr, Voter: m.Voter, Runs: m.Answers})
	}
	for _, c := range autopilot.Plan(list, k.masters(snap, members, now), k.Self, s, now) {
		log := k.Log.With("change", c.Op, "master", name(snap, c.ID), "id", c.ID)
		if err := k.change(ctx, c); err != nil {
			if ctx.Err() == nil {
				log.Warn("change of the masters failed, trying again", "err", err)
			}
			return made
		}
		log.Info("change of the masters", "because", c.Why)
		made = append(made, c)
	}
	return made
}

func (k *Keeper) change(ctx context.Context, c autopilot.Change) error {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	switch c.Op {
	case autopilot.Add, autopilot.Readdr:
		return k.Members.AddStandby(ctx, c.ID, c.Addr)
	case autopilot.Promote:
		return k.Members.Promote(ctx, c.ID, c.Addr)
	case autopilot.Demote:
		return k.Members.Demote(ctx, c.ID)
	case autopilot.Remove:
		return k.Members.RemoveServer(ctx, c.ID)
	case autopilot.Transfer:
		return k.Members.TransferLeadership(ctx, c.ID, c.Addr)
	}
	return fmt.Errorf("change %q is not known", c.Op)
}

// masters joins what the state, gossip and the log itself know of those that should be members.
func (k *Keeper) masters(snap *state.Snapshot, members []raft.Member, now time.Time) (out []autopilot.Master) {
	heard := map[string]raft.Member{}
	for _, m := range members {
		heard[m.ID] = m
	}
	for _, id := range append(k.Hears(), k.Self) {
		h := heard[id]
		h.Answers = true
		heard[id] = h
	}
	for n := range state.Nodes.All(snap) {
		if n.Role != model.RoleMaster || n.Status == model.NodeLeft {
			continue
		}
		h := heard[n.ID]
		out = append(out, autopilot.Master{ID: n.ID, Addr: k.Addr(n), Alive: h.Answers, Since: k.since(n.ID, h.Answers, now),
			CaughtUp: h.CaughtUp, Unfit: len(h.Unfit) > 0})
	}
	return out
}

func (k *Keeper) since(id string, alive bool, now time.Time) time.Time {
	if old, ok := k.seen[id]; !ok || old.alive != alive {
		if k.seen == nil {
			k.seen = map[string]sighting{}
		}
		k.seen[id] = sighting{alive, now}
	}
	return k.seen[id].since
}

func name(snap *state.Snapshot, id string) string {
	if n := state.Nodes.Get(snap, id); n != nil {
		return n.Name
	}
	return id
}
