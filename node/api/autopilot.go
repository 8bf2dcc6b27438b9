package api

import (
	"context"
	"net/http"
	"slices"
	"time"

	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
)

// The words of NodeView.Vote.
const (
	VoteVoter   = "voter"
	VoteStandby = "standby"
)

func vote(n *model.Node, votes []string) string {
	switch {
	case n.Role != model.RoleMaster || n.Status == model.NodeLeft:
		return ""
	case slices.Contains(votes, n.ID):
		return VoteVoter
	}
	return VoteStandby
}

// Autopilot is the answer of GET /autopilot: who votes and by which rule.
type Autopilot struct {
	model.Autopilot
	Voters    []string `json:"voters"` // names
	Standbys  []string `json:"standbys,omitempty"`
	Tolerates int      `json:"tolerates"` // how many of the voters may be lost now before changes stop
}

// AutopilotRequest is the body of POST /autopilot; nil fields stay as they are.
type AutopilotRequest struct {
	MaxVoters *int            `json:"maxVoters,omitempty"`
	DeadAfter *model.Duration `json:"deadAfter,omitempty"`
}

func (s *Server) autopilot(_ *http.Request, snap *state.Snapshot) (any, error) {
	out := Autopilot{Autopilot: membership(snap), Voters: []string{}}
	living := 0
	for _, n := range s.nodeViews(snap) {
		switch n.Vote {
		case VoteVoter:
			out.Voters = append(out.Voters, n.Name)
			if n.Alive {
				living++
			}
		case VoteStandby:
			out.Standbys = append(out.Standbys, n.Name)
		}
	}
	out.Tolerates = max(0, living-len(out.Voters)/2-1)
	return out, nil
}

func membership(snap *state.Snapshot) model.Autopilot {
	for c := range state.Clusters.All(snap) {
		return c.Membership()
	}
	return model.DefaultAutopilot
}

func (s *Server) setAutopilot(ctx context.Context, req *AutopilotRequest) (any, error) {
	set := membership(s.Store.Snapshot())
	if req.MaxVoters != nil {
		set.MaxVoters = *req.MaxVoters
	}
	if req.DeadAfter != nil {
		set.DeadAfter = *req.DeadAfter
	}
	_, err := command.Do(ctx, s.Proposer, &command.SetAutopilot{Settings: &set, At: time.Now().UTC()})
	return set, err
}
