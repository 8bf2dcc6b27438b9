package command

import (
	"reflect"
	"slices"
	"strings"
	"time"

	"appliance/node/model"
	"appliance/raft/state"
)

// Checkpoint marks an index at which every node hashes its state. It also
// carries what the last comparison has found, so that all nodes know.
type Checkpoint struct {
	At       time.Time          `json:"at"`
	Diverged []model.Divergence `json:"diverged,omitempty"` // in the order of node ids
}

func (c *Checkpoint) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	for _, old := range collect(state.Clusters.All(&tx.Snapshot)) {
		if reflect.DeepEqual(old.Diverged, c.Diverged) || len(old.Diverged)+len(c.Diverged) == 0 {
			continue
		}
		for _, d := range c.Diverged {
			if !named(old.Diverged, d.Node) {
				record(tx, index, c.At, "node", d.Name, "has another state than the other masters: "+strings.Join(d.Tables, ", "), nil)
			}
		}
		for _, d := range old.Diverged {
			if !named(c.Diverged, d.Node) {
				record(tx, index, c.At, "node", d.Name, "has the same state as the other masters again", nil)
			}
		}
		next := *old
		next.Diverged = slices.Clone(c.Diverged)
		state.Clusters.Put(tx, index, &next)
	}
	return nil, nil
}

func named(list []model.Divergence, node string) bool {
	return slices.ContainsFunc(list, func(d model.Divergence) bool { return d.Node == node })
}
