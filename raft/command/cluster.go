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
