package discovery

import (
	"slices"

	"appliance/node/model"
	"appliance/raft/state"
)

// nodeChecks are the stored checks by node name; the key of the inner map is
// the service id, empty for checks of the node itself.
type nodeChecks map[string]map[string][]*model.ExternalCheck

func storedChecks(snap *state.Snapshot) nodeChecks {
	all := nodeChecks{}
	for c := range state.Checks.All(snap) {
		if all[c.Node] == nil {
			all[c.Node] = map[string][]*model.ExternalCheck{}
		}
		all[c.Node][c.Service] = append(all[c.Node][c.Service], c)
	}
	return all
}

func checkOf(c *model.ExternalCheck) *Check {
	return &Check{
		Node: c.Node, ID: c.ID, Name: c.Name, Status: Status(c.Status), Notes: c.Notes, Output: c.Output,
		ServiceID: c.Service, Type: c.Type, Spec: c.Spec, CreateIndex: c.CreateIndex, ModifyIndex: c.ModifyIndex,
	}
}

// externalEndpoint derives the endpoint of a registered service.
func externalEndpoint(s *model.ExternalService, n *Node, checks []*model.ExternalCheck) *Endpoint {
	e := &Endpoint{
		Service: s.Name, ID: s.ID, Node: n.Name, NodeID: n.ID, Addr: orElse(s.Address, n.Addr), Port: s.Port,
		Protocol: "tcp", Tags: s.Tags, Meta: s.Labels, Weights: s.Weights, Status: Passing,
		CreateIndex: s.CreateIndex, ModifyIndex: s.ModifyIndex,
	}
	if e.Weights == [2]int{} {
		e.Weights = [2]int{1, 1}
	}
	for _, stored := range checks {
		c := checkOf(stored)
		c.ServiceName, c.ServiceTags = s.Name, s.Tags
		e.Checks = append(e.Checks, c)
		if Worse(e.Status, c.Status) != e.Status {
			e.Status, e.Output = c.Status, c.Output
		}
	}
	slices.SortFunc(e.Checks, func(a, b *Check) int { return compare(a.ID, b.ID) })
	return e
}

// consulPort is where Consul's own clients expect servers. Nothing listens
// there; some of them only look whether the service exists.
const consulPort = 8300

// masterEndpoint lists a master as an instance of the service "consul".
func masterEndpoint(n *Node) *Endpoint {
	return &Endpoint{
		Service: "consul", ID: "consul", Node: n.Name, NodeID: n.ID, Addr: n.Addr, Port: consulPort, Protocol: "tcp",
		Tags: []string{}, Meta: map[string]string{}, Weights: [2]int{1, 1}, Status: Passing,
		CreateIndex: n.CreateIndex, ModifyIndex: n.ModifyIndex,
	}
}
