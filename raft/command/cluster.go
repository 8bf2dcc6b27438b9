package command

import (
	"time"

	"appliance/node/model"
	"appliance/raft/state"
)

// InitCluster makes an empty log a cluster. It is refused by a log that
// already is one.
type InitCluster struct {
	Cluster      model.Cluster       `json:"cluster"`
	Environments []model.Environment `json:"environments"`
	JoinTokens   []model.JoinToken   `json:"joinTokens"`
	APITokens    []model.APIToken    `json:"apiTokens"`
	Secrets      []model.Secret      `json:"secrets"`
}

func (c *InitCluster) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	for old := range state.Clusters.All(&tx.Snapshot) {
		return nil, model.Errorf(model.CodeConflict, "the cluster is already initialised").Because("it has the id %s", old.ID)
	}
	state.Clusters.Put(tx, index, &c.Cluster)
	for i := range c.Environments {
		state.Environments.Put(tx, index, &c.Environments[i])
	}
	for i := range c.JoinTokens {
		state.JoinTokens.Put(tx, index, &c.JoinTokens[i])
	}
	for i := range c.APITokens {
		state.APITokens.Put(tx, index, &c.APITokens[i])
	}
	for i := range c.Secrets {
		state.Secrets.Put(tx, index, &c.Secrets[i])
	}
	return nil, nil
}

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
	n.Name, n.Role, n.JoinedAt, n.Drain = old.Name, old.Role, old.JoinedAt, old.Drain
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

// PutJoinToken adds or replaces a join token.
type PutJoinToken struct {
	Token model.JoinToken `json:"token"`
}

func (c *PutJoinToken) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	state.JoinTokens.Put(tx, index, &c.Token)
	record(tx, index, c.Token.CreatedAt, "token", c.Token.ID, "join token for a "+string(c.Token.Role)+" was made", nil)
	return nil, nil
}

// DeleteJoinToken revokes a join token.
type DeleteJoinToken struct {
	ID string    `json:"id"`
	At time.Time `json:"at"`
}

func (c *DeleteJoinToken) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	if !state.JoinTokens.Delete(tx, index, c.ID) {
		return nil, model.Errorf(model.CodeNotFound, "no join token has the id %s", c.ID)
	}
	record(tx, index, c.At, "token", c.ID, "join token was revoked", nil)
	return nil, nil
}

// PutAPIToken adds or replaces an API token.
type PutAPIToken struct {
	Token model.APIToken `json:"token"`
}

func (c *PutAPIToken) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	state.APITokens.Put(tx, index, &c.Token)
	record(tx, index, c.Token.CreatedAt, "token", c.Token.ID, "API token "+c.Token.Name+" was made", nil)
	return nil, nil
}

// DeleteAPIToken revokes an API token.
type DeleteAPIToken struct {
	ID string    `json:"id"`
	At time.Time `json:"at"`
}

func (c *DeleteAPIToken) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	if !state.APITokens.Delete(tx, index, c.ID) {
		return nil, model.Errorf(model.CodeNotFound, "no API token has the id %s", c.ID)
	}
	record(tx, index, c.At, "token", c.ID, "API token was revoked", nil)
	return nil, nil
}

// PutEnvironment adds or replaces an environment.
type PutEnvironment struct {
	Environment model.Environment `json:"environment"`
}

func (c *PutEnvironment) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	state.Environments.Put(tx, index, &c.Environment)
	return nil, nil
}

// DeleteEnvironment removes an environment that has no apps.
type DeleteEnvironment struct {
	Name string `json:"name"`
}

func (c *DeleteEnvironment) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	for a := range state.Apps.By(&tx.Snapshot, "env", c.Name) {
		return nil, model.Errorf(model.CodeConflict, "environment %s has apps", c.Name).Because("%s is one", a.ID).Try("stop them first")
	}
	if !state.Environments.Delete(tx, index, c.Name) {
		return nil, model.Errorf(model.CodeNotFound, "no environment is called %s", c.Name)
	}
	return nil, nil
}

// PutSecret stores a secret value.
type PutSecret struct {
	Secret model.Secret `json:"secret"`
}

func (c *PutSecret) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	state.Secrets.Put(tx, index, &c.Secret)
	return nil, nil
}

// DeleteSecret removes a secret.
type DeleteSecret struct {
	Name string `json:"name"`
}

func (c *DeleteSecret) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	if !state.Secrets.Delete(tx, index, c.Name) {
		return nil, model.Errorf(model.CodeNotFound, "no secret is called %s", c.Name)
	}
	return nil, nil
}

// TakeLease takes a free or expired lease, or extends one's own. At is the
// leader's clock when it proposed; the holder must count its own time from
// before it asked.
type TakeLease struct {
	Name   string        `json:"name"`
	Holder string        `json:"holder"`
	At     time.Time     `json:"at"`
	TTL    time.Duration `json:"ttl"`
}

func (c *TakeLease) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	old := state.Leases.Get(&tx.Snapshot, c.Name)
	next := model.Lease{Name: c.Name, Holder: c.Holder, Epoch: 1, Expires: c.At.Add(c.TTL)}
	if old != nil {
		if old.Holder != c.Holder && c.At.Before(old.Expires) {
			return nil, model.Errorf(model.CodeConflict, "lease %s is held", c.Name).
				Because("by %s until %s", old.Holder, old.Expires.UTC().Format(time.RFC3339Nano))
		}
		next.Epoch = old.Epoch
		if old.Holder != c.Holder {
			next.Epoch++
		}
	}
	state.Leases.Put(tx, index, &next)
	return next, nil
}

// ReleaseLease gives up one's own lease; anybody else's is left alone.
type ReleaseLease struct {
	Name   string `json:"name"`
	Holder string `json:"holder"`
}

func (c *ReleaseLease) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	old := state.Leases.Get(&tx.Snapshot, c.Name)
	if old == nil || old.Holder != c.Holder {
		return nil, nil
	}
	free := *old
	free.Expires = time.Time{}
	state.Leases.Put(tx, index, &free)
	return nil, nil
}

// SetVIPHolder notes which node holds the VIP.
type SetVIPHolder struct {
	Node string    `json:"node"`
	At   time.Time `json:"at"`
}

func (c *SetVIPHolder) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	return nil, changeCluster(tx, index, c.Node, func(next *model.Cluster, name string) bool {
		if next.VIPHolder == c.Node {
			return false
		}
		next.VIPHolder = c.Node
		record(tx, index, c.At, "vip", next.VIP, "is held by "+name, nil)
		return true
	})
}

// SetLeader notes which master leads; the leader's first entry of its term.
type SetLeader struct {
	Node string    `json:"node"`
	At   time.Time `json:"at"`
}

func (c *SetLeader) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	return nil, changeCluster(tx, index, c.Node, func(next *model.Cluster, name string) bool {
		if next.Leader == c.Node {
			return false
		}
		next.Leader = c.Node
		record(tx, index, c.At, "node", name, "leads the cluster", nil)
		return true
	})
}

// changeCluster changes the cluster's record on behalf of a node.
func changeCluster(tx *state.Tx, index uint64, node string, change func(next *model.Cluster, name string) bool) *model.Error {
	n := state.Nodes.Get(&tx.Snapshot, node)
	if n == nil {
		return unknownNode(node)
	}
	for old := range state.Clusters.All(&tx.Snapshot) {
		next := *old
		if change(&next, n.Name) {
			state.Clusters.Put(tx, index, &next)
		}
		break
	}
	return nil
}

// Batch applies several commands in one entry; each stands or falls alone.
type Batch struct {
	Commands [][]byte `json:"commands"` // encoded
}

// NewBatch encodes commands into one.
func NewBatch(commands ...Command) (*Batch, error) {
	b := &Batch{}
	for _, c := range commands {
		raw, err := Encode(c)
		if err != nil {
			return nil, err
		}
		b.Commands = append(b.Commands, raw)
	}
	return b, nil
}

func (c *Batch) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	parsed := make([]Command, len(c.Commands))
	for i, raw := range c.Commands {
		inner, err := Decode(raw)
		if _, nested := inner.(*Batch); err != nil || nested {
			return nil, model.Errorf(model.CodeInvalid, "command %d of the batch cannot be read", i)
		}
		parsed[i] = inner
	}
	results := make([]Result, len(parsed))
	for i, inner := range parsed {
		res, err := ApplyCommand(tx, index, inner)
		if err != nil {
			res.Err = model.Errorf(model.CodeInternal, "%v", err)
		}
		results[i] = res
	}
	return results, nil
}
