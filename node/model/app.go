package model

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"
)

// AppSpec is what a user wants of an app in one environment. It is immutable
// inside a Release.
type AppSpec struct {
	ID          string            `json:"id"`    // Marathon path, environment first: /test/notejam
	Image       string            `json:"image"` // reference as the user wrote it
	Command     []string          `json:"command,omitempty"`
	Args        []string          `json:"args,omitempty"`
	Shell       string            `json:"cmd,omitempty"` // run by /bin/sh -c; excludes Command and Args
	Env         map[string]string `json:"env,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Secrets     map[string]string `json:"secrets,omitempty" level:"2"` // variable -> name of a secret
	Instances   int               `json:"instances"`
	Resources   Resources         `json:"resources"`
	Network     string            `json:"network,omitempty"` // host, bridge (default) or none
	Ports       []Port            `json:"ports,omitempty"`
	Volumes     []VolumeMount     `json:"volumes,omitempty"`
	Checks      []Check           `json:"checks,omitempty"`
	Constraints []Constraint      `json:"constraints,omitempty"`
	Routes      []Route           `json:"routes,omitempty"`
	Upgrade     UpgradePolicy     `json:"upgrade"`
	KillGrace   Duration          `json:"killGrace,omitempty"`
	User        string            `json:"user,omitempty"`
	WorkDir     string            `json:"workDir,omitempty"`
	Privileged  bool              `json:"privileged,omitempty"`
	ForcePull   bool              `json:"forcePull,omitempty"`
	Priority    int               `json:"priority,omitempty"`
	// Marathon is the original document of an app that came through that
	// dialect, kept so that a GET gives back what was put.
	Marathon json.RawMessage `json:"marathon,omitempty"`
}

// Network modes.
const (
	NetworkBridge = "bridge"
	NetworkHost   = "host"
	NetworkNone   = "none"
)

// Port is one port of an app. HostPort 0 lets the scheduler choose.
type Port struct {
	Name          string            `json:"name,omitempty"`
	ContainerPort int               `json:"containerPort,omitempty"` // 0 in host mode: same as the host port
	HostPort      int               `json:"hostPort,omitempty"`
	ServicePort   int               `json:"servicePort,omitempty"`
	Protocol      string            `json:"protocol,omitempty"` // tcp (default) or udp
	Labels        map[string]string `json:"labels,omitempty"`
}

// VolumeMount mounts a cluster volume by name, or a host directory by path.
type VolumeMount struct {
	Name     string `json:"name,omitempty"` // cluster volume
	HostPath string `json:"hostPath,omitempty"`
	Path     string `json:"path"` // inside the container
	ReadOnly bool   `json:"readOnly,omitempty"`
}

// Check is a health check run by the agent beside the task.
type Check struct {
	Type     string   `json:"type"` // http, https, tcp or command
	Path     string   `json:"path,omitempty"`
	Port     int      `json:"port,omitempty"` // index into Ports
	Command  []string `json:"command,omitempty"`
	Interval Duration `json:"interval,omitempty"`
	Timeout  Duration `json:"timeout,omitempty"`
	Grace    Duration `json:"grace,omitempty"` // failures before this age do not count
	Failures int      `json:"failures,omitempty"`
}

// Constraint limits placement with Marathon's operators.
type Constraint struct {
	Attribute string `json:"attribute"` // a node attribute, "hostname" or "@hostname"
	Operator  string `json:"operator"`  // UNIQUE CLUSTER GROUP_BY LIKE UNLIKE MAX_PER IS
	Value     string `json:"value,omitempty"`
}

// Route makes an app reachable by the ingress proxies.
type Route struct {
	Host string `json:"host"`
	Path string `json:"path,omitempty"` // prefix, default "/"
	Port int    `json:"port,omitempty"` // index into Ports
}

// UpgradePolicy bounds a rolling deployment, as Marathon's upgradeStrategy.
type UpgradePolicy struct {
	MinHealth float64  `json:"minHealth"` // share of instances that stay healthy, 0..1
	MaxOver   float64  `json:"maxOver"`   // share of extra instances allowed, 0..1
	Deadline  Duration `json:"deadline,omitempty"`
}

// App is the current wish for one app: which release and how many instances.
// Written by masters.
type App struct {
	Meta
	ID         string    `json:"id"`
	Env        string    `json:"env"`
	Release    uint64    `json:"release"` // target version
	Stable     uint64    `json:"stable"`  // last version whose deployment succeeded with instances, 0 none
	Instances  int       `json:"instances"`
	Deployment string    `json:"deployment,omitempty"` // running one, if any
	UpdatedAt  time.Time `json:"updatedAt"`
	ScaledAt   time.Time `json:"scaledAt"`
	// Backoff: consecutive quick failures and when the next try is allowed.
	// Failures that came with log entries up to FailuresIndex are counted.
	Failures      int       `json:"failures,omitempty"`
	FailuresIndex uint64    `json:"failuresIndex,omitempty"`
	RetryAt       time.Time `json:"retryAt"`
}

// Release is one immutable version of an app in an environment.
type Release struct {
	Meta
	App       string    `json:"app"`
	Version   uint64    `json:"version"` // 1, 2, 3 ... within the app
	Spec      AppSpec   `json:"spec"`
	Digest    string    `json:"digest,omitempty"` // sha256:... of the image; empty for foreign references
	CreatedAt time.Time `json:"createdAt"`
	By        string    `json:"by,omitempty"`
	From      string    `json:"from,omitempty"` // app it was promoted from
	// Template is the spec before the environment was filled in ("{env}"), so
	// that another environment can be filled in when the release is promoted.
	Template *AppSpec `json:"template,omitempty"`
}

// InEnv fills the environment into a spec: "{env}" in route hosts, volume
// names, values of variables and names of secrets. The spec itself is not changed.
func (s AppSpec) InEnv(env string) AppSpec {
	fill := func(v string) string { return strings.ReplaceAll(v, "{env}", env) }
	s.Routes = append([]Route(nil), s.Routes...)
	for i := range s.Routes {
		s.Routes[i].Host = fill(s.Routes[i].Host)
	}
	s.Volumes = append([]VolumeMount(nil), s.Volumes...)
	for i := range s.Volumes {
		s.Volumes[i].Name = fill(s.Volumes[i].Name)
	}
	if s.Env != nil {
		vars := make(map[string]string, len(s.Env))
		for k, v := range s.Env {
			vars[k] = fill(v)
		}
		s.Env = vars
	}
	if s.Secrets != nil {
		names := make(map[string]string, len(s.Secrets))
		for k, v := range s.Secrets {
			names[k] = fill(v)
		}
		s.Secrets = names
	}
	return s
}

// SecretNames are the secrets that the spec needs, sorted, each once.
func (s *AppSpec) SecretNames() []string {
	names := slices.Sorted(maps.Values(s.Secrets))
	return slices.Compact(names)
}

// Key is the id of a release in the state.
func (r *Release) Key() string { return ReleaseKey(r.App, r.Version) }

// DeploymentState is monotonic: running leads to one of the others.
type DeploymentState string

const (
	DeploymentRunning    DeploymentState = "running"
	DeploymentSucceeded  DeploymentState = "succeeded"
	DeploymentFailed     DeploymentState = "failed"
	DeploymentReverted   DeploymentState = "reverted" // failed, and the former release is back
	DeploymentSuperseded DeploymentState = "superseded"
	DeploymentCancelled  DeploymentState = "cancelled"
)

// Deployment is the move of an app to a release and size. Written by masters.
type Deployment struct {
	Meta
	ID        string `json:"id"`
	App       string `json:"app"`
	Kind      string `json:"kind"` // deploy, scale, restart, revert, promote, stop
	From      uint64 `json:"from"` // release before, 0 none
	To        uint64 `json:"to"`
	Instances int    `json:"instances"`
	// FromInstances is the size before, for the way back.
	FromInstances int             `json:"fromInstances,omitempty"`
	State         DeploymentState `json:"state"`
	Why           string          `json:"why,omitempty"`
	Reverts       string          `json:"reverts,omitempty"` // deployment whose failure this one undoes
	StartedAt     time.Time       `json:"startedAt"`
	Deadline      time.Time       `json:"deadline"`
	EndedAt       time.Time       `json:"endedAt"`
	Receipt       *Receipt        `json:"receipt,omitempty"`
}

// Receipt is the measured outcome of a deployment. Counts are those of the
// ingress proxies while it ran; zero times mean that it did not happen yet.
type Receipt struct {
	Digest       string   `json:"digest"`
	Requests     uint64   `json:"requests"`
	Failed       uint64   `json:"failed"`
	P50          Duration `json:"p50"`
	P99          Duration `json:"p99"`
	FirstHealthy Duration `json:"firstHealthy"` // accepted -> first healthy instance
	FirstTraffic Duration `json:"firstTraffic"` // accepted -> first request served by the release
	Took         Duration `json:"took"`
	Passed       bool     `json:"passed"`
}

// ReleaseKey is the state key of a release; zero-padded so that it sorts.
func ReleaseKey(app string, version uint64) string {
	const width = 10
	digits := make([]byte, width)
	for i := width - 1; i >= 0; i-- {
		digits[i] = byte('0' + version%10)
		version /= 10
	}
	return app + "@" + string(digits)
}

// SplitAppID gives the environment and the name within it of an app id:
// "/test/notejam" is ("test", "notejam").
func SplitAppID(id string) (env, name string) {
	env, name, _ = strings.Cut(strings.TrimPrefix(id, "/"), "/")
	return env, name
}

// AppID joins an environment and a name.
func AppID(env, name string) string { return "/" + env + "/" + strings.Trim(name, "/") }

// ServiceName is the name of an app in the catalog: "/test/shop/cart" is
// "shop-cart" in environment test; services of environments are told apart by
// the suffix, "shop-cart-test", unless SERVICE_NAME says otherwise.
func ServiceName(id string) string {
	env, name := SplitAppID(id)
	if name == "" {
		return env
	}
	return strings.ReplaceAll(name, "/", "-") + "-" + env
}
