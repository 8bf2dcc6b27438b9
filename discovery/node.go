package discovery

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"appliance/node/model"
	"appliance/raft/state"
)

func compare(a, b string) int { return cmp.Compare(a, b) }

// nodeView is a node while a table is built: what the log says of it (hard)
// apart from what gossip believes (suspected).
type nodeView struct {
	*Node
	row       *model.Node // nil on nodes that are not of the cluster
	hard      Status
	suspected bool
	since     time.Time
}

// nodeViews lists the nodes of the cluster that have not left, and those that
// are only known through the Consul dialect. left holds the names of nodes
// whose registrations went with them.
func nodeViews(snap *state.Snapshot, checks nodeChecks, live Liveness) (views map[string]*nodeView, left map[string]bool) {
	views, left = map[string]*nodeView{}, map[string]bool{}
	for n := range state.Nodes.All(snap) {
		if n.Status == model.NodeLeft {
			left[n.Name] = true
			continue
		}
		views[n.Name] = clusterNode(n, checks[n.Name][""], live)
	}
	for name := range views { // a rebuilt machine has the name of one that left
		delete(left, name)
	}
	for s := range state.Services.All(snap) {
		if left[s.Node] {
			continue
		}
		v := views[s.Node]
		if v == nil {
			v = externalNode(s.Node, checks[s.Node][""])
			views[s.Node] = v
		}
		if v.row == nil {
			addRecord(v.Node, s)
		}
	}
	for name, byService := range checks {
		if views[name] == nil && !left[name] && len(byService) > 0 {
			views[name] = externalNode(name, byService[""])
		}
	}
	return views, left
}

func clusterNode(n *model.Node, stored []*model.ExternalCheck, live Liveness) *nodeView {
	v := &nodeView{row: n, hard: Passing, Node: &Node{
		ID: n.ID, Name: n.Name, Addr: n.Addr, Role: n.Role, Meta: maps.Clone(n.Attributes),
		CreateIndex: n.CreateIndex, ModifyIndex: n.ModifyIndex,
	}}
	if v.Meta == nil {
		v.Meta = map[string]string{}
	}
	serf := &Check{
		Node: n.Name, ID: SerfHealth, Name: "Serf Health Status", Status: Passing, Output: "Agent alive and reachable",
		CreateIndex: n.CreateIndex, ModifyIndex: n.ModifyIndex,
	}
	alive, since := live.Alive(n.ID)
	switch {
	case n.Status == model.NodeDown:
		serf.Status, v.hard = Critical, Critical
		serf.Output = "Agent not live or unreachable: " + orElse(n.StatusWhy, "the leader declared the node down")
	case !alive:
		serf.Status, v.suspected, v.since = Critical, true, since
		serf.Output = "Agent not live or unreachable: gossip gets no answer"
	}
	v.addChecks(stored)
	v.Checks = append([]*Check{serf}, v.Checks...)
	v.Status = Worse(v.hard, serf.Status)
	return v
}

func externalNode(name string, stored []*model.ExternalCheck) *nodeView {
	v := &nodeView{hard: Passing, Node: &Node{Name: name, Meta: map[string]string{}}}
	v.addChecks(stored)
	v.Status = v.hard
	for _, c := range v.Checks {
		if v.CreateIndex == 0 || c.CreateIndex < v.CreateIndex {
			v.CreateIndex = c.CreateIndex
		}
		v.ModifyIndex = max(v.ModifyIndex, c.ModifyIndex)
	}
	return v
}

// addRecord takes the address and metadata of a foreign node from its services
// and from its node record, a service row without id and name.
func addRecord(n *Node, s *model.ExternalService) {
	if s.NodeAddr != "" {
		n.Addr = s.NodeAddr
	}
	if s.Name == "" {
		n.Meta = maps.Clone(s.Labels)
		if n.Meta == nil {
			n.Meta = map[string]string{}
		}
	}
	if n.CreateIndex == 0 || s.CreateIndex < n.CreateIndex {
		n.CreateIndex = s.CreateIndex
	}
	n.ModifyIndex = max(n.ModifyIndex, s.ModifyIndex)
}

func (v *nodeView) addChecks(stored []*model.ExternalCheck) {
	for _, c := range stored {
		v.Checks = append(v.Checks, checkOf(c))
		v.hard = Worse(v.hard, Status(c.Status))
	}
	slices.SortFunc(v.Checks, func(a, b *Check) int { return compare(a.ID, b.ID) })
}

// apply merges the health of the node into an endpoint. kept endpoints stay
// offered although gossip suspects the node.
func (v *nodeView) apply(e *Endpoint, kept bool) *Endpoint {
	status := Worse(e.Status, v.hard)
	if v.suspected && !kept {
		status = Critical
	}
	doubted := v.suspected && kept
	if status == e.Status && !doubted {
		return e
	}
	out := *e
	out.Status, out.Doubted = status, doubted
	switch {
	case doubted:
		out.Output = "gossip gets no answer from the node, but no other instance is left"
	case e.Status != Critical:
		out.Output = v.explain()
	}
	return &out
}

func (v *nodeView) explain() string {
	for _, c := range v.Checks {
		if c.Status == v.Status {
			return c.Name + ": " + c.Output
		}
	}
	return ""
}
