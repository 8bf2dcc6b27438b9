// Package api is our own HTTP API under /appliance/v1: what the command line
// and the web pages speak. It answers on every node, from the node's own copy
// of the state; changes go to the leader inside the cluster.
//
// Field names are part of the promise of `--json` and therefore stable.
package api

import (
	"time"

	"appliance/node/doctor"
	"appliance/node/model"
)

// Prefix is the path under which the API is mounted.
const Prefix = "/appliance/v1"

// Status is the answer of GET /status.
type Status struct {
	Cluster  string       `json:"cluster"`
	ID       string       `json:"id"`
	Node     string       `json:"node"` // that answered
	Leader   string       `json:"leader,omitempty"`
	Fresh    bool         `json:"fresh"` // the answering node is in touch with a master
	Index    uint64       `json:"index"`
	VIP      string       `json:"vip,omitempty"`
	VIPNode  string       `json:"vipNode,omitempty"`
	Version  string       `json:"version"`
	Nodes    []NodeView   `json:"nodes"`
	Apps     []AppView    `json:"apps"`
	Volumes  []VolumeView `json:"volumes"`
	Warnings []string     `json:"warnings,omitempty"`
	// Findings are what the warnings are made of; `appliance doctor` has more.
	Findings []doctor.Finding `json:"findings,omitempty"`
}

// NodeView is a node with what is used of it.
type NodeView struct {
	*model.Node
	Used   model.Resources `json:"used"`
	Tasks  int             `json:"tasks"`
	Alive  bool            `json:"alive"` // as gossip sees it now
	Leader bool            `json:"leader,omitempty"`
	VIP    bool            `json:"vip,omitempty"`
	Vote   string          `json:"vote,omitempty"` // of a master: voter or standby
}

// AppView is an app with the counts a reader wants first.
type AppView struct {
	*model.App
	Name       string            `json:"name"`
	Image      string            `json:"image"`
	Digest     string            `json:"digest,omitempty"`
	Ready      int               `json:"ready"`
	Running    int               `json:"running"`
	Hosts      []string          `json:"hosts,omitempty"`
	Tasks      []TaskView        `json:"tasks,omitempty"`
	Waiting    *model.Waiting    `json:"waiting,omitempty"`
	Deploying  *model.Deployment `json:"deploying,omitempty"`
	LastReason string            `json:"lastReason,omitempty"` // of the newest failed task
}

// TaskView is a task with the name of its node.
type TaskView struct {
	*model.Task
	NodeName string `json:"nodeName,omitempty"`
	Ready    bool   `json:"ready"`
}

// VolumeView is a volume with node names.
type VolumeView struct {
	*model.Volume
	PrimaryName string   `json:"primaryName"`
	InSyncNames []string `json:"inSyncNames,omitempty"`
	Alive       bool     `json:"alive"`
}

// RouteView is a host name and who answers it.
type RouteView struct {
	Host     string   `json:"host"`
	Path     string   `json:"path"`
	App      string   `json:"app"`
	Backends []string `json:"backends"`
}

// ImageView is a tag of the registry.
type ImageView struct {
	Repo     string    `json:"repo"`
	Tag      string    `json:"tag"`
	Digest   string    `json:"digest"`
	PushedAt time.Time `json:"pushedAt"`
	Apps     []string  `json:"apps,omitempty"` // that run it
}

// DeployRequest is the body of POST /deploy. Without Spec the app's present
// spec is taken, or what the image says of itself.
type DeployRequest struct {
	App       string         `json:"app"` // "notejam" or "/test/notejam"
	Env       string         `json:"env"`
	Image     string         `json:"image,omitempty"`
	Instances *int           `json:"instances,omitempty"`
	Spec      *model.AppSpec `json:"spec,omitempty"`
}

// PromoteRequest is the body of POST /promote.
type PromoteRequest struct {
	App       string `json:"app"`
	From      string `json:"from"`
	To        string `json:"to"`
	Instances *int   `json:"instances,omitempty"`
}

// ScaleRequest is the body of POST /scale.
type ScaleRequest struct {
	App       string `json:"app"`
	Env       string `json:"env"`
	Instances int    `json:"instances"`
}

// RollbackRequest is the body of POST /rollback and /restart.
type RollbackRequest struct {
	App     string `json:"app"`
	Env     string `json:"env"`
	Release uint64 `json:"release,omitempty"` // 0: the last good one before the present
}

// StopRequest is the body of POST /stop.
type StopRequest struct {
	App string `json:"app"`
	Env string `json:"env"`
}

// DrainRequest is the body of POST /drain.
type DrainRequest struct {
	Node  string `json:"node"` // name
	Drain bool   `json:"drain"`
}

// Accepted is the answer to every change that starts a deployment.
type Accepted struct {
	App        string `json:"app"`
	Release    uint64 `json:"release"`
	Deployment string `json:"deployment"`
	Digest     string `json:"digest,omitempty"`
}

// Progress is one line of GET /deployments/{id}/watch.
type Progress struct {
	Deployment *model.Deployment `json:"deployment"`
	Tasks      []TaskView        `json:"tasks"`
	Waiting    *model.Waiting    `json:"waiting,omitempty"`
	Done       bool              `json:"done"`
}

// TokenRequest is the body of POST /tokens/join and /tokens/api.
type TokenRequest struct {
	Role      model.Role     `json:"role,omitempty"` // join tokens
	Name      string         `json:"name,omitempty"` // API tokens
	Policy    model.Policy   `json:"policy"`
	TTL       model.Duration `json:"ttl,omitempty"`
	SingleUse bool           `json:"singleUse,omitempty"`
}

// Token is the answer: the only time that the secret is shown.
type Token struct {
	ID      string    `json:"id"`
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
}

// Failure is the body of every error answer.
type Failure struct {
	Error *model.Error `json:"error"`
}
