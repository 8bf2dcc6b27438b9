//go:build nextlevel

package command

import (
	"appliance/node/model"
	"appliance/raft/state"
)

// Speaks of the binary that tests upgrade to: the next one, before it exists.
const Speaks = 3

var future = []Command{(*PutFuture)(nil)}

func init() { state.Reads(Speaks) }

func (*PutFuture) kind() kind { return 9000 }

// PutFuture is a change that only the next binary knows, with a table that only it has.
type PutFuture struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

func (c *PutFuture) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	state.Futures.Put(tx, index, &state.Future{Name: c.Name, Value: c.Value})
	return nil, nil
}
