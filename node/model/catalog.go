package model

import "time"

// KV is one key of the Consul-style key-value store.
type KV struct {
	Meta
	Key       string `json:"key"`
	Value     []byte `json:"value"`
	Flags     uint64 `json:"flags,omitempty"`
	Session   string `json:"session,omitempty"`
	LockIndex uint64 `json:"lockIndex,omitempty"`
	// DelayUntil holds new locks back after a session ended while it had one,
	// so that its former owner can notice.
	DelayUntil time.Time `json:"delayUntil,omitzero"`
}

// Session is a Consul session; locks of a session end with it.
type Session struct {
	Meta
	ID        string        `json:"id"`
	Name      string        `json:"name,omitempty"`
	Node      string        `json:"node"` // node name
	Behavior  string        `json:"behavior"`
	TTL       time.Duration `json:"ttl"`
	LockDelay time.Duration `json:"lockDelay"`
	Checks    []string      `json:"checks,omitempty"`
	RenewedAt time.Time     `json:"renewedAt"`
}

// ExternalService is a service registered by hand through the Consul API, on
// an agent or directly in the catalog. Services of tasks are never stored:
// they are derived. A row without ID and Name is a node record: the address
// and, in Labels, the metadata of a node that is not of the cluster.
type ExternalService struct {
	Meta
	Node     string            `json:"node"` // node name
	NodeAddr string            `json:"nodeAddr,omitempty"`
	ID       string            `json:"id"`
	Name     string            `json:"name"`
	Tags     []string          `json:"tags,omitempty"`
	Address  string            `json:"address,omitempty"`
	Port     int               `json:"port,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
	Weights  [2]int            `json:"weights,omitempty"` // passing, warning
}

// Key is the id of the record in the state.
func (s *ExternalService) Key() string { return s.Node + "\x00" + s.ID }

// ExternalCheck is a check registered through the Consul API.
type ExternalCheck struct {
	Meta
	Node      string          `json:"node"`
	ID        string          `json:"id"`
	Name      string          `json:"name"`
	Service   string          `json:"service,omitempty"` // service ID
	Status    string          `json:"status"`            // passing, warning, critical
	Notes     string          `json:"notes,omitempty"`
	Output    string          `json:"output,omitempty"`
	Type      string          `json:"type,omitempty"`
	Spec      CheckDefinition `json:"spec"`
	UpdatedAt time.Time       `json:"updatedAt"`
}

// CheckDefinition is how an external check is run by its node.
type CheckDefinition struct {
	HTTP            string              `json:"http,omitempty"`
	Method          string              `json:"method,omitempty"`
	Header          map[string][]string `json:"header,omitempty"`
	TCP             string              `json:"tcp,omitempty"`
	TTL             Duration            `json:"ttl,omitempty"`
	Interval        Duration            `json:"interval,omitempty"`
	Timeout         Duration            `json:"timeout,omitempty"`
	DeregisterAfter Duration            `json:"deregisterAfter,omitempty"`
}

// Key is the id of the record in the state.
func (c *ExternalCheck) Key() string { return c.Node + "\x00" + c.ID }

// Volume is a file system by name, shared by tasks on several hosts. Written
// by masters.
type Volume struct {
	Meta
	Name      string    `json:"name"`
	Env       string    `json:"env,omitempty"`
	Primary   string    `json:"primary"`           // node id that serves it
	InSync    []string  `json:"inSync,omitempty"`  // node ids whose copy is complete, primary included
	Members   []string  `json:"members,omitempty"` // node ids that should hold a copy
	Epoch     uint64    `json:"epoch"`             // grows with every change of primary
	CreatedAt time.Time `json:"createdAt"`
}

// Manifest is one image manifest or index of the registry.
type Manifest struct {
	Meta
	Repo         string            `json:"repo"`
	Digest       string            `json:"digest"`
	MediaType    string            `json:"mediaType"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Size         int64             `json:"size"`
	Subject      string            `json:"subject,omitempty"`
	Blobs        []string          `json:"blobs,omitempty"`     // config and layers
	Manifests    []string          `json:"manifests,omitempty"` // children of an index
	Annotations  map[string]string `json:"annotations,omitempty"`
	PushedAt     time.Time         `json:"pushedAt"`
	By           string            `json:"by,omitempty"`
}

// Key is the id of the record in the state.
func (m *Manifest) Key() string { return m.Repo + "@" + m.Digest }

// Tag names a manifest.
type Tag struct {
	Meta
	Repo     string    `json:"repo"`
	Name     string    `json:"name"`
	Digest   string    `json:"digest"`
	History  []string  `json:"history,omitempty"` // former digests, newest first, at most 20
	PushedAt time.Time `json:"pushedAt"`
}

// Key is the id of the record in the state.
func (t *Tag) Key() string { return t.Repo + ":" + t.Name }

// Event is a line of the cluster's history, kept in a bounded table.
type Event struct {
	Meta
	Seq     uint64            `json:"seq"` // the log index, unique with N
	N       int               `json:"n"`
	At      time.Time         `json:"at"`
	Kind    string            `json:"kind"` // app, task, node, deployment, volume, image, token ...
	Subject string            `json:"subject"`
	Text    string            `json:"text"`
	By      string            `json:"by,omitempty"`
	Fields  map[string]string `json:"fields,omitempty"`
}
