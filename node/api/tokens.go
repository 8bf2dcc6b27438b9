package api

import (
	"context"
	"net/http"
	"time"

	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
)

// defaultJoinTTL is how long a join token lives when nobody says otherwise.
const defaultJoinTTL = 24 * time.Hour

func (s *Server) joinToken(ctx context.Context, req *TokenRequest) (any, error) {
	secret, t, err := s.newJoinToken(req)
	if err != nil {
		return nil, err
	}
	if _, err := command.Do(ctx, s.Proposer, &command.PutJoinToken{Token: t}); err != nil {
		return nil, err
	}
	return Token{ID: t.ID, Token: secret, Expires: t.ExpiresAt}, nil
}

// newJoinToken makes what a request asks for; nothing is proposed yet.
func (s *Server) newJoinToken(req *TokenRequest) (secret string, t model.JoinToken, err error) {
	if req.Role != model.RoleMaster && req.Role != model.RoleAgent {
		return "", t, model.Errorf(model.CodeInvalid, "a join token is for a master or an agent, not %q", req.Role).
			Try("say which with --role master or --role agent")
	}
	if err := positive(req.TTL); err != nil {
		return "", t, err
	}
	now := time.Now().UTC()
	if secret, t, err = s.Cluster.NewJoinToken(req.Role, now); err != nil {
		return "", t, err
	}
	t.SingleUse = req.SingleUse
	t.ExpiresAt = now.Add(defaultJoinTTL)
	if req.TTL > 0 {
		t.ExpiresAt = now.Add(req.TTL.D())
	}
	return secret, t, nil
}

func (s *Server) apiToken(ctx context.Context, req *TokenRequest) (any, error) {
	if req.Name == "" {
		return nil, model.Errorf(model.CodeInvalid, "an API token needs a name").Try("name who or what will use it")
	}
	if err := positive(req.TTL); err != nil {
		return nil, err
	}
	now := time.Now().UTC()
	secret, t, err := s.Cluster.NewAPIToken(now)
	if err != nil {
		return nil, err
	}
	t.Name, t.Policy = req.Name, req.Policy
	if req.TTL > 0 {
		t.ExpiresAt = now.Add(req.TTL.D())
	}
	if _, err := command.Do(ctx, s.Proposer, &command.PutAPIToken{Token: t}); err != nil {
		return nil, err
	}
	return Token{ID: t.ID, Token: secret, Expires: t.ExpiresAt}, nil
}

// TokenView is a token without its secret.
type TokenView struct {
	ID      string    `json:"id"`
	Kind    string    `json:"kind"`
	Name    string    `json:"name,omitempty"`
	Role    string    `json:"role,omitempty"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	UsedBy  string    `json:"usedBy,omitempty"`
}

func (s *Server) tokens(r *http.Request, snap *state.Snapshot) (any, error) {
	if err := s.Authorize(r, Need{Operator: true}); err != nil {
		return nil, err
	}
	out := []TokenView{}
	for t := range state.JoinTokens.All(snap) {
		out = append(out, TokenView{ID: t.ID, Kind: "join", Role: string(t.Role), Created: t.CreatedAt, Expires: t.ExpiresAt, UsedBy: nodeName(snap, t.UsedBy)})
	}
	for t := range state.APITokens.All(snap) {
		out = append(out, TokenView{ID: t.ID, Kind: "api", Name: t.Name, Created: t.CreatedAt, Expires: t.ExpiresAt})
	}
	return out, nil
}

func (s *Server) revoke(w http.ResponseWriter, r *http.Request) error {
	id, now := r.PathValue("id"), time.Now().UTC()
	var c command.Command = &command.DeleteAPIToken{ID: id, At: now}
	if state.JoinTokens.Get(s.Store.Snapshot(), id) != nil {
		c = &command.DeleteJoinToken{ID: id, At: now}
	}
	return s.done(w, r, c)
}
