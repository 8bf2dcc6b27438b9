package command

import (
	"encoding/binary"
	"fmt"
	"time"

	"appliance/node/model"
	"appliance/raft/state"
)

// level is the protocol level that a kind of command came with. Binaries of a lower one stop at such an
// entry, so it may be in the log only when every node speaks that level.
func (k kind) level() int {
	switch {
	case k == 9000: // the tests' own, see speaks_next.go
		return 3
	case k >= 24 && k <= 29, k >= 90 && k <= 99:
		return 2
	}
	return 1
}

// Level is the least protocol level that the cluster must have for c to be proposed: that of its kind, of
// the commands inside, and of the fields that are set.
func Level(c Command) int {
	switch c := c.(type) {
	case nil:
		return 1
	case *RaiseLevel:
		return 1 // the way up; it looks at every node itself
	case *InitCluster:
		return 1 // it says itself which level the new cluster has
	case *Audited:
		return Level(c.Inner)
	case *Batch:
		out := c.kind().level()
		for _, raw := range c.Commands {
			if inner, err := Decode(raw); err == nil {
				out = max(out, Level(inner))
			}
		}
		return out
	}
	return max(c.kind().level(), fieldLevel(c))
}

// ClusterLevel is the protocol level of the cluster that the view is of: 1 if that is not known.
func ClusterLevel(s *state.Snapshot) int {
	for c := range state.Clusters.All(s) {
		return c.Protocol()
	}
	return 1
}

// NodeLevel is what a node speaks, as the leader found it.
type NodeLevel struct {
	Node  string `json:"node"` // id
	Level int    `json:"level"`
}

// RaiseLevel raises the cluster's protocol level. From then on commands, fields and tables of that level
// may be used and binaries of a lower one are not let in: there is no way back. It is refused unless
// every node that has not left speaks it.
//
// The levels of the nodes are part of it, because a binary of level 1 drops them when it stores what a
// node says of itself: here all replicas get them alike.
type RaiseLevel struct {
	Level int         `json:"level"`
	Nodes []NodeLevel `json:"nodes"` // all that the leader knows, left ones too
	At    time.Time   `json:"at"`
}

func (c *RaiseLevel) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	now := ClusterLevel(&tx.Snapshot)
	if c.Level <= now {
		return nil, model.Errorf(model.CodeConflict, "the cluster has protocol level %d already", now)
	}
	said := map[string]int{}
	for _, n := range c.Nodes {
		said[n.Node] = n.Level
	}
	for n := range state.Nodes.All(&tx.Snapshot) {
		if n.Status != model.NodeLeft && max(1, said[n.ID]) < c.Level {
			return nil, tooOld(n.Name, said[n.ID], c.Level)
		}
	}
	for _, old := range collect(state.Clusters.All(&tx.Snapshot)) {
		next := *old
		next.Level = c.Level
		state.Clusters.Put(tx, index, &next)
		record(tx, index, c.At, "cluster", next.Name, fmt.Sprintf("has protocol level %d", c.Level), nil)
	}
	for _, old := range collect(state.Nodes.All(&tx.Snapshot)) {
		next := *old
		next.Level = said[old.ID]
		state.Nodes.Put(tx, index, &next)
	}
	return nil, nil
}

// tooOld says that a node's binary speaks less than what is needed.
func tooOld(node string, speaks, want int) *model.Error {
	return model.Errorf(model.CodeConflict, "the binary on node %s is too old", node).
		Because("it speaks protocol level %d, %d is needed", max(1, speaks), want).
		Try("install a newer version there, or take the node out for good (appliance leave on it); appliance upgrade shows all nodes")
}

// welcome refuses a node whose binary would not understand this cluster's log. Below level 2 there is
// nothing to refuse, and old replicas do not look.
func welcome(s *state.Snapshot, n *model.Node) *model.Error {
	if want := ClusterLevel(s); n.Speaks() < want {
		return tooOld(n.Name, n.Level, want)
	}
	return nil
}

// understood is nil if this binary may apply c; otherwise the node has to stop.
func understood(c Command) error {
	switch c := c.(type) {
	case *RaiseLevel:
		if c.Level > Speaks {
			return state.NewerLevel(c.Level)
		}
	case *Batch:
		for _, raw := range c.Commands {
			if len(raw) < 3 {
				continue // refused by apply, everywhere
			}
			if k := kind(binary.BigEndian.Uint16(raw[1:3])); raw[0] != codecVersion || types[k] == nil {
				return &UnknownError{Version: raw[0], Kind: uint16(k)}
			}
		}
	}
	return nil
}
