package discovery

import "appliance/node/model"

// Status is the health of an endpoint, a node or a check, in Consul's words.
type Status string

const (
	Passing  Status = "passing"
	Warning  Status = "warning"
	Critical Status = "critical"
)

func (s Status) rank() int {
	switch s {
	case Passing:
		return 0
	case Warning:
		return 1
	default: // an unknown word is no reason to send traffic
		return 2
	}
}

// Worse returns the worse of two.
func Worse(a, b Status) Status {
	if b.rank() > a.rank() {
		return b
	}
	return a
}

// Endpoint is one address at which a service answers. Endpoints are shared and
// never changed.
type Endpoint struct {
	Service string
	ID      string // unique on its node
	Node    string // node name
	NodeID  string // empty on nodes that are not of the cluster

	Addr     string // IP address, or a name for some external services
	Port     int
	Protocol string // tcp or udp
	// PortIndex is the position in the app's port list, as in a route.
	PortIndex int
	PortName  string

	Tags    []string
	Meta    map[string]string
	Weights [2]int // passing, warning; of SRV answers

	// Status is the worst of the endpoint's own checks and those of its node;
	// Output explains it.
	Status Status
	Output string
	// Draining endpoints finish what they have and get nothing new. Their
	// Status is critical, so that nobody who only looks there offers them.
	Draining bool
	// Doubted endpoints are on a node that gossip believes dead. They stay
	// offered because nothing better is left.
	Doubted bool

	Task    string // task id; empty for external services
	App     string
	Env     string
	Release uint64

	Checks []*Check // of the endpoint itself, without those of its node

	CreateIndex uint64
	ModifyIndex uint64 // of the record it derives from
}

// Offered reports whether new traffic may go to the endpoint.
func (e *Endpoint) Offered() bool { return e.Status != Critical && !e.Draining }

// Check is a health check of an endpoint or a node.
type Check struct {
	Node        string
	ID          string
	Name        string
	Status      Status
	Notes       string
	Output      string
	ServiceID   string
	ServiceName string
	ServiceTags []string
	Type        string
	Spec        model.CheckDefinition
	CreateIndex uint64
	ModifyIndex uint64
}

// Ids of the checks that every node of the cluster can have.
const (
	SerfHealth      = "serfHealth"
	NodeMaintenance = "_node_maintenance"
)

// Node is a machine as the catalog shows it.
type Node struct {
	ID     string
	Name   string
	Addr   string
	Role   model.Role // empty: only known through the Consul dialect
	Meta   map[string]string
	Checks []*Check // of the node itself; serfHealth first on nodes of the cluster
	// Status is the worst of Checks.
	Status      Status
	CreateIndex uint64
	ModifyIndex uint64
}

// Cluster reports whether the node runs this software.
func (n *Node) Cluster() bool { return n.Role != "" }

// Service is the endpoints of one name. Shared and never changed.
type Service struct {
	Name      string
	Tags      []string // union, sorted
	Endpoints []*Endpoint
	// ModifyIndex is the Table.Index at which an endpoint, or a node that has
	// one, changed last.
	ModifyIndex uint64

	offered []*Endpoint
}

// Offered returns the endpoints that new traffic may go to. The slice is
// shared: do not change it.
func (s *Service) Offered() []*Endpoint {
	if s == nil {
		return nil
	}
	return s.offered
}
