package command

import (
	"time"

	"appliance/node/model"
	"appliance/raft/state"
)

// PutJoinToken adds or replaces a join token.
type PutJoinToken struct {
	Token model.JoinToken `json:"token"`
}

func (c *PutJoinToken) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	state.JoinTokens.Put(tx, index, &c.Token)
	record(tx, index, c.Token.CreatedAt, "token", c.Token.ID, "join token for a "+string(c.Token.Role)+" was made", nil)
	return nil, nil
}

// DeleteJoinToken revokes a join token.
type DeleteJoinToken struct {
	ID string    `json:"id"`
	At time.Time `json:"at"`
}

func (c *DeleteJoinToken) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	if !state.JoinTokens.Delete(tx, index, c.ID) {
		return nil, model.Errorf(model.CodeNotFound, "no join token has the id %s", c.ID)
	}
	record(tx, index, c.At, "token", c.ID, "join token was revoked", nil)
	return nil, nil
}

// PutAPIToken adds or replaces an API token.
type PutAPIToken struct {
	Token model.APIToken `json:"token"`
}

func (c *PutAPIToken) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	state.APITokens.Put(tx, index, &c.Token)
	record(tx, index, c.Token.CreatedAt, "token", c.Token.ID, "API token "+c.Token.Name+" was made", nil)
	return nil, nil
}

// DeleteAPIToken revokes an API token.
type DeleteAPIToken struct {
	ID string    `json:"id"`
	At time.Time `json:"at"`
}

func (c *DeleteAPIToken) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	if !state.APITokens.Delete(tx, index, c.ID) {
		return nil, model.Errorf(model.CodeNotFound, "no API token has the id %s", c.ID)
	}
	record(tx, index, c.At, "token", c.ID, "API token was revoked", nil)
	return nil, nil
}
