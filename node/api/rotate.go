package api

import (
	"context"

	"appliance/node/model"
	"appliance/raft/command"
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
// one change: whichever others there are when it is applied.
func (s *Server) rotateToken(ctx context.Context, req *RotateTokenRequest) (any, error) {
	if err := positive(req.Grace); err != nil {
		return nil, err
	}
	secret, t, err := s.newJoinToken(&TokenRequest{Role: req.Role, TTL: req.TTL, SingleUse: req.SingleUse})
	if err != nil {
		return nil, err
	}
	res, err := command.Do(ctx, s.Proposer, &command.PutJoinToken{Token: t, EndOthers: t.CreatedAt.Add(req.Grace.D())})
	if err != nil {
		return nil, err
	}
	out := RotatedToken{Token: Token{ID: t.ID, Token: secret, Expires: t.ExpiresAt}, Revoked: []string{}}
	return out, res.Decode(&out.Revoked)
}
