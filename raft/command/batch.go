package command

import (
	"appliance/node/model"
	"appliance/raft/state"
)

// Batch applies several commands in one entry; each stands or falls alone.
type Batch struct {
	Commands [][]byte `json:"commands"` // encoded
}

// NewBatch encodes commands into one.
func NewBatch(commands ...Command) (*Batch, error) {
	b := &Batch{}
	for _, c := range commands {
		raw, err := Encode(c)
		if err != nil {
			return nil, err
		}
		b.Commands = append(b.Commands, raw)
	}
	return b, nil
}

func (c *Batch) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	parsed := make([]Command, len(c.Commands))
	for i, raw := range c.Commands {
		inner, err := Decode(raw)
		_, nested := inner.(*Batch)
		_, audited := inner.(*Audited) // the batch is, as a whole
		if err != nil || nested || audited {
			return nil, model.Errorf(model.CodeInvalid, "command %d of the batch cannot be read", i)
		}
		parsed[i] = inner
	}
	results := make([]Result, len(parsed))
	for i, inner := range parsed {
		res, err := ApplyCommand(tx, index, inner)
		if err != nil {
			res.Err = model.Errorf(model.CodeInternal, "%v", err)
		}
		results[i] = res
	}
	return results, nil
}
