package command

import (
	"fmt"
	"time"

	"appliance/node/model"
	"appliance/raft/state"
)

// RaiseGeneration notes that the cluster had lost its quorum and goes on from one master's log. It is
// the first change after that, so that every node learns which masters not to follow any more.
type RaiseGeneration struct {
	Generation uint64    `json:"generation"`
	Proof      []byte    `json:"proof"`
	Node       string    `json:"node"` // name of the master
	Last       uint64    `json:"last"` // index of the last entry that it had
	At         time.Time `json:"at"`
}

func (c *RaiseGeneration) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	for _, old := range collect(state.Clusters.All(&tx.Snapshot)) {
		if c.Generation <= max(1, old.Generation) {
			return nil, model.Errorf(model.CodeConflict, "the cluster has generation %d already", max(1, old.Generation))
		}
		next := *old
		next.Generation, next.GenerationProof = c.Generation, c.Proof
		state.Clusters.Put(tx, index, &next)
		record(tx, index, c.At, "cluster", next.Name,
			fmt.Sprintf("was recovered from %s at index %d and has generation %d", c.Node, c.Last, c.Generation), nil)
	}
	return nil, nil
}
