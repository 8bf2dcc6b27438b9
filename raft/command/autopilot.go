package command

import (
	"slices"
	"time"

	"appliance/node/model"
	"appliance/raft/state"
)

// SetAutopilot sets what the operator wants of the log's membership, or notes
// what the leader has made of it. Nil fields stay as they are.
type SetAutopilot struct {
	Settings *model.Autopilot `json:"settings,omitempty"`
	Voters   []string         `json:"voters,omitempty"` // node ids, sorted
	At       time.Time        `json:"at"`
}

// Limits of the settings. More voters make every change slower and bear losses
// that come together too rarely; a voter that only restarts must not be replaced.
const (
	maxVoters    = 9
	minDeadAfter = 2 * time.Second
	maxDeadAfter = 24 * time.Hour
)

func (c *SetAutopilot) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	if s := c.Settings; s != nil {
		switch d := time.Duration(s.DeadAfter); {
		case s.MaxVoters < 1 || s.MaxVoters > maxVoters || s.MaxVoters%2 == 0:
			return nil, model.Errorf(model.CodeInvalid, "%d cannot be the number of voters", s.MaxVoters).
				Because("it is odd, from 1 to %d: an even number bears no more losses than the odd one below", maxVoters).Try("use 3 or 5")
		case d < minDeadAfter || d > maxDeadAfter:
			return nil, model.Errorf(model.CodeInvalid, "a dead voter cannot be replaced after %v", d).
				Because("from %v to %v is possible", minDeadAfter, maxDeadAfter).Try("use 10s")
		}
	}
	for _, old := range collect(state.Clusters.All(&tx.Snapshot)) {
		next := *old
		if c.Settings != nil {
			next.Autopilot = c.Settings
		}
		if c.Voters != nil {
			next.Voters = slices.Clone(c.Voters)
		}
		state.Clusters.Put(tx, index, &next)
		if c.Settings != nil {
			record(tx, index, c.At, "cluster", next.Name, "has new settings for its voters", nil)
		}
	}
	return nil, nil
}
