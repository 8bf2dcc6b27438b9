package command

import (
	"time"

	"appliance/node/model"
	"appliance/raft/state"
)

// PutJoinToken adds or replaces a join token. With EndOthers it is a rotation: all other tokens of the
// role end then at the latest, at once if that is not after the new token was made, and the result is
// their ids.
type PutJoinToken struct {
	Token     model.JoinToken `json:"token"`
	EndOthers time.Time       `json:"endOthers,omitzero" level:"2"`
}

func (c *PutJoinToken) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	var ended any
	if !c.EndOthers.IsZero() {
		ended = c.endOthers(tx, index)
	}
	state.JoinTokens.Put(tx, index, &c.Token)
	record(tx, index, c.Token.CreatedAt, "token", c.Token.ID, "join token for a "+string(c.Token.Role)+" was made", nil)
	return ended, nil
}

func (c *PutJoinToken) endOthers(tx *state.Tx, index uint64) []string {
	ids := []string{}
	for _, old := range collect(state.JoinTokens.All(&tx.Snapshot)) {
		if old.Role != c.Token.Role || old.ID == c.Token.ID {
			continue
		}
		ids = append(ids, old.ID)
		last := *old
		switch {
		case !c.EndOthers.After(c.Token.CreatedAt):
			state.JoinTokens.Delete(tx, index, old.ID)
			record(tx, index, c.Token.CreatedAt, "token", old.ID, "join token was revoked", nil)
		case old.ExpiresAt.IsZero() || old.ExpiresAt.After(c.EndOthers):
			last.ExpiresAt = c.EndOthers
			state.JoinTokens.Put(tx, index, &last)
			record(tx, index, c.Token.CreatedAt, "token", old.ID, "join token ends "+c.EndOthers.UTC().Format(time.RFC3339), nil)
		}
	}
	return ids
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
