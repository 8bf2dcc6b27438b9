package runtime

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"syscall"
	"time"
)

// Signal is a Unix signal.
type Signal = syscall.Signal

// NetworkMode says which network a container sees.
type NetworkMode string

// The network modes. The empty mode means NetworkHost, the default of Mesos.
const (
	NetworkHost   NetworkMode = "host"
	NetworkBridge NetworkMode = "bridge"
	NetworkNone   NetworkMode = "none"
)

// ContainerSpec is everything needed to create a container. It holds only
// decided values and is comparable by Hash, so that Create is idempotent.
type ContainerSpec struct {
	// ID names the container for its whole life. It is chosen by the caller
	// and deterministic, so that a crash between checkpoint and create does
	// no harm. Letters, digits and "_.-", at most 76 bytes.
	ID string `json:"id"`
	// Image is the reference to run, pinned by digest where it matters:
	// "127.0.0.1:5000/notejam@sha256:...". It must be present (Pull, Import).
	Image string `json:"image"`

	Entrypoint []string `json:"entrypoint,omitempty"` // replaces the image's; its Cmd is then dropped
	Args       []string `json:"args,omitempty"`       // replaces the image's Cmd
	// Wrap goes before the process that all this makes, as its first words.
	Wrap     []string `json:"wrap,omitempty"`
	Env      []string `json:"env,omitempty"` // "K=V", over the image's
	WorkDir  string   `json:"workDir,omitempty"`
	User     string   `json:"user,omitempty"` // "uid", "name", "uid:gid"; empty: the image's
	Hostname string   `json:"hostname,omitempty"`
	// Labels select in List. Keys under "appliance.runtime/" are ours.
	Labels map[string]string `json:"labels,omitempty"`

	Mounts    []Mount       `json:"mounts,omitempty"`
	Resources Resources     `json:"resources"`
	Network   NetworkMode   `json:"network,omitempty"`
	Ports     []PortMapping `json:"ports,omitempty"` // NetworkBridge only

	// Nameservers, Search and DNSOptions make /etc/resolv.conf; without
	// nameservers the node's own file is used, its loopback servers replaced
	// by the bridge's gateway where loopback is not the node's.
	Nameservers []string    `json:"nameservers,omitempty"`
	Search      []string    `json:"search,omitempty"`
	DNSOptions  []string    `json:"dnsOptions,omitempty"`
	ExtraHosts  []HostEntry `json:"extraHosts,omitempty"` // lines of /etc/hosts

	StopSignal  Signal        `json:"stopSignal,omitempty"`  // default: the image's, else SIGTERM
	GracePeriod time.Duration `json:"gracePeriod,omitempty"` // default DefaultGrace

	Privileged     bool `json:"privileged,omitempty"`
	ReadOnlyRootFS bool `json:"readOnlyRootFS,omitempty"`

	// LogDir receives two plain files, "stdout" and "stderr" (see package
	// logs). The caller owns the directory. Empty: output is discarded.
	LogDir string `json:"logDir,omitempty"`
}

// DefaultGrace is the time between StopSignal and SIGKILL when the spec names
// none; Mesos and Marathon use 3 s, Docker 10 s: a web app needs to drain.
const DefaultGrace = 10 * time.Second

// DefaultPids bounds the processes of a container that names no bound, so
// that a fork bomb stays inside.
const DefaultPids = 4096

// Mount binds a path of the host into the container. A missing Source is an
// error: it is never created by guess.
type Mount struct {
	Source      string `json:"source"` // absolute, on the host
	Destination string `json:"destination"`
	ReadOnly    bool   `json:"readOnly,omitempty"`
}

// Resources bound a container. Zero means unbounded, except Pids.
type Resources struct {
	// CPUs is the guaranteed share under contention, in cores.
	CPUs float64 `json:"cpus,omitempty"`
	// CPULimit is the hard ceiling in cores; a ceiling near a small CPUs
	// makes start-up slow, so it is apart.
	CPULimit    float64 `json:"cpuLimit,omitempty"`
	MemoryBytes int64   `json:"memoryBytes,omitempty"` // hard, swap included
	Pids        int64   `json:"pids,omitempty"`        // default DefaultPids
}

// PortMapping publishes a container's port on the host.
type PortMapping struct {
	HostIP        string `json:"hostIP,omitempty"` // empty: every address
	HostPort      uint16 `json:"hostPort"`
	ContainerPort uint16 `json:"containerPort"`
	Protocol      string `json:"protocol,omitempty"` // "tcp" (default) or "udp"
}

// HostEntry is one line of /etc/hosts.
type HostEntry struct {
	IP    string   `json:"ip"`
	Names []string `json:"names"`
}

// Hash identifies the spec's content: equal specs have equal hashes.
func (s ContainerSpec) Hash() string {
	b, err := json.Marshal(s) // maps are sorted by encoding/json
	if err != nil {
		panic(err) // only plain fields: cannot happen
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// Grace is the effective grace period for a Stop(…, grace).
func (s ContainerSpec) Grace(grace time.Duration) time.Duration {
	switch {
	case grace >= 0:
		return grace
	case s.GracePeriod > 0:
		return s.GracePeriod
	}
	return DefaultGrace
}

// NetworkOrDefault is the network mode with the empty one resolved.
func (s ContainerSpec) NetworkOrDefault() NetworkMode {
	if s.Network == "" {
		return NetworkHost
	}
	return s.Network
}

// ProtocolOrDefault is "tcp" or "udp".
func (p PortMapping) ProtocolOrDefault() string {
	if p.Protocol == "" {
		return "tcp"
	}
	return p.Protocol
}

// PidsOrDefault is the effective bound on processes.
func (r Resources) PidsOrDefault() int64 {
	if r.Pids <= 0 {
		return DefaultPids
	}
	return r.Pids
}

// LogOptions say what Logs copies and where. A nil writer drops that stream.
type LogOptions struct {
	Stdout, Stderr io.Writer
	Follow         bool
	// Tail starts that many lines before the end; negative or zero: all.
	Tail int
}

// ExecSpec is one more process in a running container.
type ExecSpec struct {
	Args    []string
	Env     []string // over the container's
	WorkDir string
	User    string
	// TTY gives the process a terminal; its output then comes on Stdout only.
	TTY            bool
	Stdin          io.Reader // nil: none
	Stdout, Stderr io.Writer // nil: dropped
	Resize         <-chan WindowSize
}

// WindowSize is a terminal's size in characters.
type WindowSize struct{ Width, Height uint16 }
