// Package backend chooses among the container engines that this program
// knows. It is the one place that imports them all.
package backend

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"appliance/node/runtime"
	"appliance/node/runtime/containerd"
	"appliance/node/runtime/docker"
	"appliance/node/runtime/network"
)

// Config is what any engine may need.
type Config struct {
	Node    string // the node's id: names cgroups, tells nodes apart on a shared engine
	Data    string // on disk, such as /var/lib/appliance
	Run     string // on tmpfs, such as /run/appliance: at most 36 bytes
	Network network.Config
	// DockerHost and ContainerdAddress override the usual sockets.
	DockerHost        string
	ContainerdAddress string
	OCIRuntime        string
	Log               *slog.Logger
}

// defaultContainerd is where distributions put its socket.
const defaultContainerd = "/run/containerd/containerd.sock"

// Choose opens the engine named by flag ("docker", "containerd", "embedded"),
// or for "" and "auto" a Docker engine that answers, else the embedded one.
// The second result says why, for the first log line.
func Choose(ctx context.Context, flag string, cfg Config) (runtime.Runtime, string, error) {
	return runtime.Choose(ctx, flag, candidates(cfg))
}

func candidates(cfg Config) []runtime.Candidate {
	dockerConf := docker.Config{Host: cfg.DockerHost, Node: cfg.Node, Log: cfg.Log}
	ctd := containerd.Config{Node: cfg.Node, Root: filepath.Join(cfg.Data, "containers"), Run: filepath.Join(cfg.Run, "c"),
		OCIRuntime: cfg.OCIRuntime, Network: cfg.Network, Log: cfg.Log}
	external := ctd
	if external.Address = cfg.ContainerdAddress; external.Address == "" {
		external.Address = defaultContainerd
	}
	return []runtime.Candidate{
		{
			Name: "docker", Automatic: true,
			Probe: func(ctx context.Context) (string, error) { return docker.Probe(ctx, dockerConf) },
			Open:  func(ctx context.Context) (runtime.Runtime, error) { return open(docker.Open(ctx, dockerConf)) },
		},
		{
			Name: "embedded", Automatic: true,
			Probe: func(context.Context) (string, error) {
				if os.Geteuid() != 0 {
					return "", errors.New("needs root")
				}
				return "no Docker engine answers; running as root, so containers run in this binary's own engine", nil
			},
			Open: func(ctx context.Context) (runtime.Runtime, error) { return open(containerd.Open(ctx, ctd)) },
		},
		{
			Name: "containerd", // by name only: its owner may not expect us
			Probe: func(context.Context) (string, error) {
				if _, err := os.Stat(external.Address); err != nil {
					return "", fmt.Errorf("no containerd: %w", err)
				}
				return "containerd at " + external.Address, nil
			},
			Open: func(ctx context.Context) (runtime.Runtime, error) { return open(containerd.Open(ctx, external)) },
		},
	}
}

// open keeps a nil driver from becoming a non-nil interface.
func open[T runtime.Runtime](rt T, err error) (runtime.Runtime, error) {
	if err != nil {
		return nil, err
	}
	return rt, nil
}
