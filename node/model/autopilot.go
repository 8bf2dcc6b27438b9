package model

import "time"

// Autopilot is what the operator wants of the masters that vote.
type Autopilot struct {
	MaxVoters int      `json:"maxVoters"` // odd; further masters are standbys
	DeadAfter Duration `json:"deadAfter"` // a voter dead for so long is replaced by a standby
}

// DefaultAutopilot holds until an operator sets something else. Five voters
// bear the loss of two; ten seconds are longer than a restart.
var DefaultAutopilot = Autopilot{MaxVoters: 5, DeadAfter: Duration(10 * time.Second)}

// Membership is the settings in force.
func (c *Cluster) Membership() Autopilot {
	if c.Autopilot == nil {
		return DefaultAutopilot
	}
	return *c.Autopilot
}
