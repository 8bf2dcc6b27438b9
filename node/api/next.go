//go:build nextlevel

package api

import (
	"context"
	"net/http"

	"appliance/raft/command"
	"appliance/raft/state"
)

// nextRoutes are for tests of upgrades: a change that needs the next level.
func (s *Server) nextRoutes() {
	operate(s, "/upgrade/future", func(ctx context.Context, c *command.PutFuture) (any, error) {
		_, err := command.Do(ctx, s.Proposer, c)
		return c, err
	})
	s.get("/upgrade/future", func(_ *http.Request, snap *state.Snapshot) (any, error) {
		out := map[string]string{}
		for f := range state.Futures.All(snap) {
			out[f.Name] = f.Value
		}
		return out, nil
	})
}
