package command

import (
	"time"

	"appliance/node/model"
	"appliance/raft/state"
)

// RegisterService adds or replaces a service, and checks, registered through
// the Consul API. Service may be nil to add checks alone.
type RegisterService struct {
	Service *model.ExternalService `json:"service,omitempty"`
	Checks  []model.ExternalCheck  `json:"checks,omitempty"`
	// ReplaceChecks drops the service's checks that are not in the list.
	ReplaceChecks bool `json:"replaceChecks,omitempty"`
}

func (c *RegisterService) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	for _, check := range c.Checks {
		own := c.Service != nil && check.Service == c.Service.ID
		if check.Service != "" && !own && state.Services.Get(&tx.Snapshot, check.Node+"\x00"+check.Service) == nil {
			return nil, model.Errorf(model.CodeNotFound, "ServiceID %q does not exist", check.Service)
		}
	}
	if c.Service != nil {
		if c.ReplaceChecks {
			dropChecks(tx, index, c.Service.Node, c.Service.ID)
		}
		state.Services.Put(tx, index, c.Service)
	}
	for i := range c.Checks {
		state.Checks.Put(tx, index, &c.Checks[i])
	}
	return nil, nil
}

func dropChecks(tx *state.Tx, index uint64, node, service string) {
	for _, check := range collect(state.Checks.By(&tx.Snapshot, "node", node)) {
		if check.Service == service {
			state.Checks.Delete(tx, index, check.Key())
		}
	}
}

// DeregisterService removes a service and its checks.
type DeregisterService struct {
	Node string `json:"node"`
	ID   string `json:"id"`
}

func (c *DeregisterService) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	if !state.Services.Delete(tx, index, c.Node+"\x00"+c.ID) {
		return nil, model.Errorf(model.CodeNotFound, "Unknown service ID %q. Ensure that the service ID is passed, not the service name.", c.ID)
	}
	dropChecks(tx, index, c.Node, c.ID)
	return nil, nil
}

// UpdateCheck is the outcome of a check.
type UpdateCheck struct {
	Node   string    `json:"node"`
	ID     string    `json:"id"`
	Status string    `json:"status"`
	Output string    `json:"output,omitempty"`
	At     time.Time `json:"at"`
}

func (c *UpdateCheck) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	old := state.Checks.Get(&tx.Snapshot, c.Node+"\x00"+c.ID)
	if old == nil {
		return nil, unknownCheck(c.ID)
	}
	if old.Status == c.Status && old.Output == c.Output {
		return nil, nil
	}
	check := *old
	check.Status, check.Output, check.UpdatedAt = c.Status, c.Output, c.At
	state.Checks.Put(tx, index, &check)
	return nil, nil
}

// DeregisterCheck removes a check.
type DeregisterCheck struct {
	Node string `json:"node"`
	ID   string `json:"id"`
}

func (c *DeregisterCheck) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	if !state.Checks.Delete(tx, index, c.Node+"\x00"+c.ID) {
		return nil, unknownCheck(c.ID)
	}
	return nil, nil
}

func unknownCheck(id string) *model.Error {
	return model.Errorf(model.CodeNotFound, "Unknown check ID %q. Ensure that the check ID is passed, not the check name.", id)
}
