package api

import (
	"context"
	"net/http"
	"time"

	"appliance/node/model"
	"appliance/raft/state"
)

// Upgrader answers what the nodes run and makes an upgrade final.
type Upgrader interface {
	Status(ctx context.Context) UpgradeStatus
	// Finish raises the cluster's protocol level as far as all nodes speak it
	// and returns it.
	Finish(ctx context.Context) (level int, err error)
	// Hold keeps the level from being raised by itself.
	Hold(ctx context.Context, d time.Duration) (until time.Time, err error)
	Resume(ctx context.Context) error
	// Check compares the states of all nodes at one index.
	Check(ctx context.Context) (StateCheck, error)
}

// StateCheck is the answer of POST /upgrade/check.
type StateCheck struct {
	Index    uint64             `json:"index"` // log index at which the states were compared
	Nodes    int                `json:"nodes"` // that answered, this one included
	Diverged []model.Divergence `json:"diverged,omitempty"`
}

// UpgradeStatus is the answer of GET /upgrade.
type UpgradeStatus struct {
	Level    int           `json:"level"`    // protocol level of the cluster
	Possible int           `json:"possible"` // the level that all nodes speak
	Held     time.Time     `json:"held,omitzero"`
	Missing  []string      `json:"missing,omitempty"` // what stands in the way of the newest level
	Nodes    []NodeVersion `json:"nodes"`
}

// NodeVersion is what a node runs.
type NodeVersion struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Role    string `json:"role"`
	Addr    string `json:"addr"`
	Status  string `json:"status"`
	Version string `json:"version"`
	Speaks  int    `json:"speaks"`  // protocol level
	Answers bool   `json:"answers"` // it said so itself just now
}

// HoldRequest is the body of POST /upgrade/hold.
type HoldRequest struct {
	For time.Duration `json:"for"` // nanoseconds
}

// MaxHold bounds a hold: a month.
const MaxHold = 31 * 24 * time.Hour

// upgradeTimeout bounds the question to all nodes.
const upgradeTimeout = 10 * time.Second

func (s *Server) upgradeRoutes() {
	if s.Upgrade == nil {
		return
	}
	s.nextRoutes()
	s.get("/upgrade", func(r *http.Request, _ *state.Snapshot) (any, error) {
		ctx, cancel := context.WithTimeout(r.Context(), upgradeTimeout)
		defer cancel()
		return s.Upgrade.Status(ctx), nil
	})
	operate(s, "/upgrade/finish", func(ctx context.Context, _ *struct{}) (any, error) {
		level, err := s.Upgrade.Finish(ctx)
		return UpgradeStatus{Level: level, Possible: level}, err
	})
	operate(s, "/upgrade/hold", func(ctx context.Context, req *HoldRequest) (any, error) {
		if req.For < time.Minute || req.For > MaxHold {
			return nil, model.Errorf(model.CodeInvalid, "an upgrade cannot be held for %s", req.For).Try("give between a minute and %s", MaxHold)
		}
		until, err := s.Upgrade.Hold(ctx, req.For)
		return UpgradeStatus{Held: until}, err
	})
	operate(s, "/upgrade/check", func(ctx context.Context, _ *struct{}) (any, error) { return s.Upgrade.Check(ctx) })
	operate(s, "/upgrade/resume", func(ctx context.Context, _ *struct{}) (any, error) {
		return struct{}{}, s.Upgrade.Resume(ctx)
	})
}
