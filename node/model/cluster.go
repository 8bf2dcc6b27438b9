package model

import "time"

// Cluster is the one record that makes a log a cluster. Written once by init.
type Cluster struct {
	Meta
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"createdAt"`
	CACert    []byte    `json:"caCert"` // PEM; public; of the CA that signs
	// Trust is by what nodes know each other; nil until the leader of a version
	// that knows it has filled it in. Written by RotateKey only.
	Trust *Trust `json:"trust,omitempty" level:"2"`
	VIP   string `json:"vip,omitempty"`
	// DefaultEnv is the environment of apps whose id names none, as in the
	// Marathon dialect.
	DefaultEnv string `json:"defaultEnv,omitempty"`
	// VIPHolder is the node that holds the VIP, as it last said itself. For
	// people: nothing is decided by it.
	VIPHolder string `json:"vipHolder,omitempty"`
	// Leader is the master that leads, as it said itself when it began. Only
	// nodes that do not vote look here.
	Leader string `json:"leader,omitempty"`
	// Domain is the suffix under which app host names are also answered.
	Domain string `json:"domain,omitempty"`
	// Level is the protocol level that all nodes speak; 0 means 1. Written by
	// init and by RaiseLevel.
	Level int `json:"level,omitempty" level:"1"`
	// Diverged are the nodes whose state was another one than that of the other
	// masters at the last comparison. Written by Checkpoint.
	Diverged []Divergence `json:"diverged,omitempty" level:"2"`
	// Autopilot is nil until an operator sets it; see Membership.
	Autopilot *Autopilot `json:"autopilot,omitempty" level:"2"`
	// Voters are the ids of the masters that vote, sorted, as the leader noted
	// them. For people: the log's own configuration decides.
	Voters []string `json:"voters,omitempty" level:"2"`
	// Generation counts recoveries from a lost quorum, from 1 on (0 means 1),
	// and GenerationProof is the cluster's signature under it. Written by
	// RaiseGeneration only.
	Generation      uint64 `json:"generation,omitempty" level:"2"`
	GenerationProof []byte `json:"generationProof,omitempty" level:"2"`
}

// Divergence is a replica that has applied the same log and has another state.
type Divergence struct {
	Node   string   `json:"node"` // id
	Name   string   `json:"name"`
	Tables []string `json:"tables"` // that differ
	Index  uint64   `json:"index"`  // where it was found first
}

// Protocol is the protocol level of the cluster's log, at least 1.
func (c *Cluster) Protocol() int { return max(1, c.Level) }

// Role is what a node does: a master votes and schedules, an agent runs tasks.
type Role string

const (
	RoleMaster Role = "master"
	RoleAgent  Role = "agent"
)

// NodeStatus is the cluster's view of a node, written by the leader only.
type NodeStatus string

const (
	NodeReady NodeStatus = "ready"
	NodeDown  NodeStatus = "down" // unreachable long enough that its tasks are lost
	NodeLeft  NodeStatus = "left" // left on purpose
)

// Node is a machine of the cluster. Identity, address and capacity are written
// by the node itself when it joins or starts; Status and Drain by masters.
type Node struct {
	Meta
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Role       Role              `json:"role"`
	Addr       string            `json:"addr"` // IP address without port
	Attributes map[string]string `json:"attributes,omitempty"`
	Capacity   Resources         `json:"capacity"`
	PortRange  [2]int            `json:"portRange"` // host ports for tasks, inclusive
	Runtime    string            `json:"runtime,omitempty"`
	Version    string            `json:"version,omitempty"`
	// Level is the protocol level that the node's binary speaks; 0 means 1.
	Level     int       `json:"level,omitempty" level:"1"`
	Ingress   bool      `json:"ingress,omitempty"`
	JoinedAt  time.Time `json:"joinedAt"`
	StartedAt time.Time `json:"startedAt"`

	Status      NodeStatus `json:"status"`
	StatusSince time.Time  `json:"statusSince"`
	StatusWhy   string     `json:"statusWhy,omitempty"`
	Drain       bool       `json:"drain,omitempty"`
	// Trust is what the node has of the cluster's keys, said by itself.
	Trust *NodeTrust `json:"trust,omitempty" level:"2"`
}

// Speaks is the protocol level of the node's binary, at least 1.
func (n *Node) Speaks() int { return max(1, n.Level) }

// Runs reports whether new tasks may be placed on the node.
func (n *Node) Runs() bool { return n.Role == RoleAgent && n.Status == NodeReady && !n.Drain }

// Resources are amounts of a node or a task. Memory and disk count in MiB, as
// in Mesos.
type Resources struct {
	CPUs   float64 `json:"cpus"`
	Memory float64 `json:"mem"`
	Disk   float64 `json:"disk,omitempty"`
	GPUs   float64 `json:"gpus,omitempty"`
}

// Add returns r + o.
func (r Resources) Add(o Resources) Resources {
	return Resources{r.CPUs + o.CPUs, r.Memory + o.Memory, r.Disk + o.Disk, r.GPUs + o.GPUs}
}

// Sub returns r - o; amounts may become negative.
func (r Resources) Sub(o Resources) Resources {
	return Resources{r.CPUs - o.CPUs, r.Memory - o.Memory, r.Disk - o.Disk, r.GPUs - o.GPUs}
}

// fitSlack forgives floating point dust when fractions of cpus are summed up.
const fitSlack = 1e-6

// Fits reports whether r fits into free.
func (r Resources) Fits(free Resources) bool {
	return r.CPUs <= free.CPUs+fitSlack && r.Memory <= free.Memory+fitSlack &&
		r.Disk <= free.Disk+fitSlack && r.GPUs <= free.GPUs+fitSlack
}

// JoinToken lets a machine become a node. Only a hash of the secret is kept.
type JoinToken struct {
	Meta
	ID        string    `json:"id"`
	Role      Role      `json:"role"`
	Hash      []byte    `json:"hash"`
	CreatedAt time.Time `json:"createdAt"`
	ExpiresAt time.Time `json:"expiresAt"` // zero: never
	SingleUse bool      `json:"singleUse,omitempty"`
	UsedBy    string    `json:"usedBy,omitempty"` // node id of the last use
}

// APIToken authenticates a caller from another machine. Only a hash is kept.
type APIToken struct {
	Meta
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Hash      []byte    `json:"hash"`
	Policy    Policy    `json:"policy"`
	CreatedAt time.Time `json:"createdAt"`
	ExpiresAt time.Time `json:"expiresAt"`
}

// Policy says what a token may do.
type Policy struct {
	Operator bool     `json:"operator,omitempty"` // everything
	Read     bool     `json:"read,omitempty"`
	Deploy   []string `json:"deploy,omitempty"` // environments; "*" is all
	Push     bool     `json:"push,omitempty"`   // push images
}

// Environment is a named part of the cluster: which nodes, which rules.
type Environment struct {
	Meta
	Name     string            `json:"name"`
	Selector map[string]string `json:"selector"` // attributes a node must have
	// RequireReceipt refuses a promotion into the environment unless the
	// release has a passing receipt where it comes from.
	RequireReceipt bool `json:"requireReceipt,omitempty"`
}

// Selects reports whether the node belongs to the environment.
func (e *Environment) Selects(n *Node) bool {
	for k, v := range e.Selector {
		if n.Attributes[k] != v {
			return false
		}
	}
	return true
}

// Lease is a fenced right with an end, such as "serve this VIP".
type Lease struct {
	Meta
	Name    string    `json:"name"`
	Holder  string    `json:"holder"` // node id
	Epoch   uint64    `json:"epoch"`  // grows with every change of holder
	Expires time.Time `json:"expires"`
}
