package api

import (
	"context"
	"slices"
	"time"

	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
)

// RotateTokenRequest is the body of POST /tokens/join/rotate.
type RotateTokenRequest struct {
	Role      model.Role     `json:"role"`
	TTL       model.Duration `json:"ttl,omitempty"`
	SingleUse bool           `json:"singleUse,omitempty"`
	Grace     model.Duration `json:"grace,omitempty"` // how long the old ones stay; none: not at all
}

// RotatedToken is the answer: the only time that the new secret is shown.
type RotatedToken struct {
	Token
	Revoked []string `json:"revoked"` // ids of the old tokens
}

// rotateToken makes a new join token of a role and ends all others of it, in
// one entry of the log.
func (s *Server) rotateToken(ctx context.Context, req *RotateTokenRequest) (any, error) {
	if err := positive(req.Grace); err != nil {
		return nil, err
	}
	if err := s.Cluster.Sync(ctx); err != nil {
		return nil, err
	}
	secret, t, err := s.newJoinToken(&TokenRequest{Role: req.Role, TTL: req.TTL, SingleUse: req.SingleUse})
	if err != nil {
		return nil, err
	}
	changes, revoked := []command.Command{&command.PutJoinToken{Token: t}}, []string{}
	for old := range state.JoinTokens.All(s.Store.Snapshot()) {
		if old.Role != req.Role {
			continue
		}
		revoked = append(revoked, old.ID)
		changes = append(changes, ended(old, t.CreatedAt, req.Grace.D()))
	}
	for part := range slices.Chunk(changes, maxBatch) {
		if err := s.batch(ctx, part); err != nil {
			return nil, err
		}
	}
	return RotatedToken{Token: Token{ID: t.ID, Token: secret, Expires: t.ExpiresAt}, Revoked: revoked}, nil
}

// maxBatch bounds one entry; nobody has that many tokens.
const maxBatch = 500

// ended is the change that ends a token after a while, or now.
func ended(t *model.JoinToken, now time.Time, grace time.Duration) command.Command {
	end := now.Add(grace)
	if grace <= 0 {
		return &command.DeleteJoinToken{ID: t.ID, At: now}
	}
	last := *t
	if last.ExpiresAt.IsZero() || last.ExpiresAt.After(end) {
		last.ExpiresAt = end
	}
	return &command.PutJoinToken{Token: last}
}

// batch makes several changes in one entry. The first refusal is the error.
func (s *Server) batch(ctx context.Context, changes []command.Command) error {
	b, err := command.NewBatch(changes...)
	if err != nil {
		return err
	}
	res, err := command.Do(ctx, s.Proposer, b)
	if err != nil {
		return err
	}
	var each []command.Result
	if err := res.Decode(&each); err != nil {
		return err
	}
	for _, r := range each {
		if r.Err != nil && r.Err.Code != model.CodeNotFound { // revoked meanwhile
			return r.Err
		}
	}
	return nil
}
