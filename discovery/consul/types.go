package consul

import (
	"net/netip"
	"time"

	"appliance/discovery"
)

// The answers of the API. Field names and order are Consul's.

type nodeJSON struct {
	ID              string
	Node            string
	Address         string
	Datacenter      string
	TaggedAddresses map[string]string
	Meta            map[string]string
	CreateIndex     uint64
	ModifyIndex     uint64
}

type weightsJSON struct{ Passing, Warning int }

type addressJSON struct {
	Address string
	Port    int
}

type serviceJSON struct {
	ID                string
	Service           string
	Tags              []string
	Address           string
	TaggedAddresses   map[string]addressJSON `json:",omitempty"`
	Meta              map[string]string
	Port              int
	Weights           weightsJSON
	EnableTagOverride bool
	ContentHash       string `json:",omitempty"`
	Datacenter        string `json:",omitempty"`
	CreateIndex       uint64 `json:",omitempty"`
	ModifyIndex       uint64 `json:",omitempty"`
}

type definitionJSON struct {
	HTTP                           string              `json:",omitempty"`
	Method                         string              `json:",omitempty"`
	Header                         map[string][]string `json:",omitempty"`
	TCP                            string              `json:",omitempty"`
	Interval                       string              `json:",omitempty"`
	Timeout                        string              `json:",omitempty"`
	DeregisterCriticalServiceAfter string              `json:",omitempty"`
}

type checkJSON struct {
	Node        string
	CheckID     string
	Name        string
	Status      string
	Notes       string
	Output      string
	ServiceID   string
	ServiceName string
	ServiceTags []string
	Type        string
	ExposedPort int
	Definition  definitionJSON
	CreateIndex uint64
	ModifyIndex uint64
}

type catalogServiceJSON struct {
	ID                       string
	Node                     string
	Address                  string
	Datacenter               string
	TaggedAddresses          map[string]string
	NodeMeta                 map[string]string
	ServiceID                string
	ServiceName              string
	ServiceTags              []string
	ServiceAddress           string
	ServiceTaggedAddresses   map[string]addressJSON `json:",omitempty"`
	ServiceWeights           weightsJSON
	ServiceMeta              map[string]string
	ServicePort              int
	ServiceEnableTagOverride bool
	CreateIndex              uint64
	ModifyIndex              uint64
}

type healthServiceJSON struct {
	Node    nodeJSON
	Service serviceJSON
	Checks  []checkJSON
}

func list[T any](rows []T) []T {
	if rows == nil {
		return []T{}
	}
	return rows
}

func dict(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

func (s *Server) nodeJSON(n *discovery.Node) nodeJSON {
	out := nodeJSON{
		ID: n.ID, Node: n.Name, Address: n.Addr, Datacenter: s.cfg.Datacenter, Meta: dict(n.Meta),
		TaggedAddresses: map[string]string{}, CreateIndex: n.CreateIndex, ModifyIndex: n.ModifyIndex,
	}
	if n.Addr != "" {
		out.TaggedAddresses["lan"], out.TaggedAddresses["wan"] = n.Addr, n.Addr
		if family := family(n.Addr); family != "" {
			out.TaggedAddresses["lan_"+family], out.TaggedAddresses["wan_"+family] = n.Addr, n.Addr
		}
	}
	return out
}

func family(addr string) string {
	ip, err := netip.ParseAddr(addr)
	switch {
	case err != nil:
		return ""
	case ip.Unmap().Is4():
		return "ipv4"
	}
	return "ipv6"
}

func serviceOf(e *discovery.Endpoint) serviceJSON {
	return serviceJSON{
		ID: e.ID, Service: e.Service, Tags: list(e.Tags), Address: e.Addr, Meta: dict(e.Meta), Port: e.Port,
		TaggedAddresses: taggedAddresses(e), Weights: weightsJSON{e.Weights[0], e.Weights[1]},
		CreateIndex: e.CreateIndex, ModifyIndex: e.ModifyIndex,
	}
}

func taggedAddresses(e *discovery.Endpoint) map[string]addressJSON {
	f := family(e.Addr)
	if f == "" {
		return nil
	}
	a := addressJSON{e.Addr, e.Port}
	return map[string]addressJSON{"lan_" + f: a, "wan_" + f: a}
}

func checkOf(c *discovery.Check) checkJSON {
	return checkJSON{
		Node: c.Node, CheckID: c.ID, Name: c.Name, Status: string(c.Status), Notes: c.Notes, Output: c.Output,
		ServiceID: c.ServiceID, ServiceName: c.ServiceName, ServiceTags: list(c.ServiceTags), Type: c.Type,
		Definition: definitionJSON{
			HTTP: c.Spec.HTTP, Method: c.Spec.Method, Header: c.Spec.Header, TCP: c.Spec.TCP,
			Interval: span(c.Spec.Interval.D()), Timeout: span(c.Spec.Timeout.D()),
			DeregisterCriticalServiceAfter: span(c.Spec.DeregisterAfter.D()),
		},
		CreateIndex: c.CreateIndex, ModifyIndex: c.ModifyIndex,
	}
}

func span(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return d.String()
}

func checksOf(groups ...[]*discovery.Check) []checkJSON {
	out := []checkJSON{}
	for _, g := range groups {
		for _, c := range g {
			out = append(out, checkOf(c))
		}
	}
	return out
}

func (s *Server) catalogServiceOf(e *discovery.Endpoint, n *discovery.Node) catalogServiceJSON {
	node, svc := s.nodeJSON(n), serviceOf(e)
	return catalogServiceJSON{
		ID: node.ID, Node: node.Node, Address: node.Address, Datacenter: node.Datacenter, TaggedAddresses: node.TaggedAddresses,
		NodeMeta: node.Meta, ServiceID: svc.ID, ServiceName: svc.Service, ServiceTags: svc.Tags, ServiceAddress: svc.Address,
		ServiceTaggedAddresses: svc.TaggedAddresses, ServiceWeights: svc.Weights, ServiceMeta: svc.Meta, ServicePort: svc.Port,
		CreateIndex: svc.CreateIndex, ModifyIndex: svc.ModifyIndex,
	}
}

// endpointChecks are the checks of an endpoint with those of its node. Where
// the node is only doubted and the endpoint is kept for lack of another,
// serfHealth says so without taking it out of rotation.
func endpointChecks(e *discovery.Endpoint, n *discovery.Node) []checkJSON {
	out := checksOf(n.Checks, e.Checks)
	if e.Doubted {
		for i := range out {
			if out[i].CheckID == discovery.SerfHealth {
				out[i].Status, out[i].Output = string(discovery.Passing), e.Output
			}
		}
	}
	return out
}
