package command

import (
	"time"

	"appliance/node/model"
	"appliance/raft/state"
)

// RegisterNode admits a machine that has shown a valid join token.
//
// A name in use by a living node is a conflict. A node that is down or has
// left gives its name to the newcomer: it is the same machine, rebuilt.
type RegisterNode struct {
	Node  model.Node `json:"node"`
	Token string     `json:"token,omitempty"` // join token id; empty for the first master
	At    time.Time  `json:"at"`
}

// Registered is the result of RegisterNode.
type Registered struct {
	Replaced string `json:"replaced,omitempty"` // id of the former node of that name
}

func (c *RegisterNode) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	s := &tx.Snapshot
	if refusal := welcome(s, &c.Node); refusal != nil {
		return nil, refusal
	}
	var token *model.JoinToken
	if c.Token != "" {
		var refusal *model.Error
		if token, refusal = usableToken(s, c.Token, c.Node, c.At); refusal != nil {
			return nil, refusal
		}
	}
	var old *model.Node
	for n := range state.Nodes.By(s, "name", c.Node.Name) {
		if n.ID != c.Node.ID {
			old = n
		}
	}
	if old != nil && old.Status == model.NodeReady {
		return nil, model.Errorf(model.CodeConflict, "the name %s is taken", c.Node.Name).
			Because("node %s at %s has it and is alive", old.ID, old.Addr).
			Try("choose another --name, or stop that node first")
	}
	var res Registered
	if old != nil {
		loseTasks(tx, index, old, "node was rebuilt under the same name", c.At)
		state.Nodes.Delete(tx, index, old.ID)
		res.Replaced = old.ID
		record(tx, index, c.At, "node", c.Node.Name, "replaces the former node of that name", nil)
	}
	if token != nil {
		t := *token
		t.UsedBy = c.Node.ID
		state.JoinTokens.Put(tx, index, &t)
	}
	state.Nodes.Put(tx, index, &c.Node)
	record(tx, index, c.At, "node", c.Node.Name, "joined as "+string(c.Node.Role), nil)
	return res, nil
}

func usableToken(s *state.Snapshot, id string, n model.Node, at time.Time) (*model.JoinToken, *model.Error) {
	t := state.JoinTokens.Get(s, id)
	switch {
	case t == nil:
		return nil, model.Errorf(model.CodeDenied, "the join token is not known").
			Because("it was revoked or belongs to another cluster").Try("make one with: appliance token create")
	case !t.ExpiresAt.IsZero() && at.After(t.ExpiresAt):
		return nil, model.Errorf(model.CodeDenied, "the join token has expired").
			Because("it was valid until %s", t.ExpiresAt.UTC().Format(time.RFC3339)).Try("make one with: appliance token create")
	case t.Role != n.Role:
		return nil, model.Errorf(model.CodeDenied, "the join token is for a %s", t.Role).
			Because("this machine wants to be a %s", n.Role).Try("use the token for that role")
	case t.SingleUse && t.UsedBy != "" && t.UsedBy != n.ID:
		return nil, model.Errorf(model.CodeDenied, "the join token was already used").Try("make one with: appliance token create")
	}
	return t, nil
}

// UpdateNode is what a node says of itself at every start: address, capacity,
// version. Status and drain stay as they are except that a node that was down
// or had left is ready again.
type UpdateNode struct {
	Node model.Node `json:"node"`
	At   time.Time  `json:"at"`
}

func (c *UpdateNode) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	old := state.Nodes.Get(&tx.Snapshot, c.Node.ID)
	if old == nil {
		return nil, unknownNode(c.Node.ID)
	}
	n := c.Node
	if refusal := welcome(&tx.Snapshot, &n); refusal != nil {
		return nil, refusal
	}
	n.Name, n.Role, n.JoinedAt, n.Drain, n.Trust = old.Name, old.Role, old.JoinedAt, old.Drain, old.Trust
	n.Status, n.StatusSince = model.NodeReady, old.StatusSince
	if old.Status != model.NodeReady {
		n.StatusSince = c.At
		record(tx, index, c.At, "node", n.Name, "is ready", nil)
	}
	state.Nodes.Put(tx, index, &n)
	return nil, nil
}

func unknownNode(id string) *model.Error {
	return model.Errorf(model.CodeNotFound, "no node has the id %s", id).
		Because("it was removed or replaced").Try("join the machine again")
}

// SetNodeStatus is the leader's verdict on a node. A node declared down or
// left loses its tasks in the same entry, so that they are replaced at once.
type SetNodeStatus struct {
	Node   string           `json:"node"`
	Status model.NodeStatus `json:"status"`
	Why    string           `json:"why,omitempty"`
	At     time.Time        `json:"at"`
}

func (c *SetNodeStatus) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	old := state.Nodes.Get(&tx.Snapshot, c.Node)
	if old == nil {
		return nil, unknownNode(c.Node)
	}
	if old.Status == c.Status {
		return nil, nil
	}
	n := *old
	n.Status, n.StatusSince, n.StatusWhy = c.Status, c.At, c.Why
	state.Nodes.Put(tx, index, &n)
	record(tx, index, c.At, "node", n.Name, "is "+string(c.Status), map[string]string{"why": c.Why})
	if c.Status != model.NodeReady {
		loseTasks(tx, index, &n, "node is "+string(c.Status), c.At)
	}
	return nil, nil
}

// loseTasks declares every live task of the node lost. The agent may not
// revive them: terminal states are final.
func loseTasks(tx *state.Tx, index uint64, n *model.Node, why string, at time.Time) {
	for _, t := range collect(state.Tasks.By(&tx.Snapshot, "node", n.ID)) {
		if !t.Live() {
			continue
		}
		lost := *t
		lost.Status.State, lost.Status.Reason, lost.Status.Message, lost.Status.At = model.TaskLost, "REASON_AGENT_REMOVED", why, at
		lost.Status.Seq++
		state.Tasks.Put(tx, index, &lost)
		record(tx, index, at, "task", t.ID, "is lost: "+why, map[string]string{"app": t.App, "node": n.Name})
	}
}

// SetNodeDrain keeps new tasks off a node, or allows them again.
type SetNodeDrain struct {
	Node  string    `json:"node"`
	Drain bool      `json:"drain"`
	At    time.Time `json:"at"`
}

func (c *SetNodeDrain) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	old := state.Nodes.Get(&tx.Snapshot, c.Node)
	if old == nil {
		return nil, unknownNode(c.Node)
	}
	n := *old
	n.Drain = c.Drain
	state.Nodes.Put(tx, index, &n)
	text := "takes tasks again"
	if c.Drain {
		text = "is draining"
	}
	record(tx, index, c.At, "node", n.Name, text, nil)
	return nil, nil
}

// RemoveNode forgets a node that is not ready.
type RemoveNode struct {
	Node string    `json:"node"`
	At   time.Time `json:"at"`
}

func (c *RemoveNode) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	old := state.Nodes.Get(&tx.Snapshot, c.Node)
	if old == nil {
		return nil, unknownNode(c.Node)
	}
	if old.Status == model.NodeReady {
		return nil, model.Errorf(model.CodeConflict, "node %s is alive", old.Name).Try("run appliance leave on it first")
	}
	loseTasks(tx, index, old, "node was removed", c.At)
	state.Nodes.Delete(tx, index, c.Node)
	record(tx, index, c.At, "node", old.Name, "was removed", nil)
	return nil, nil
}
