// Package docker drives containers through a Docker engine's API, from 20.10
// on. Nothing outside of this package knows Docker's types.
package docker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/client"

	"appliance/node/runtime"
	"appliance/node/runtime/logs"
)

// Config says which engine, and for whom.
type Config struct {
	// Host is "unix:///path"; empty: $DOCKER_HOST, else /var/run/docker.sock.
	Host string
	// Node keeps the containers of nodes that share an engine apart.
	Node string
	Log  *slog.Logger
}

// Labels on each container.
const (
	labelNode = runtime.LabelPrefix + "node"
	labelSpec = runtime.LabelPrefix + "spec"
)

// pingTimeout bounds the first words with an engine; callTimeout those calls
// that do not wait for a container: an engine under load takes seconds.
const (
	pingTimeout = 5 * time.Second
	callTimeout = 2 * time.Minute
)

// Runtime is the driver for one engine.
type Runtime struct {
	cfg    Config
	api    *client.Client
	memory int64 // the machine's, to tell a limit from none

	ctx    context.Context // of the owned goroutines
	cancel context.CancelFunc
	owned  sync.WaitGroup

	mu     sync.Mutex
	copies map[string]*copying // by container id
}

var _ runtime.Runtime = (*Runtime)(nil)

func dial(cfg Config) (*client.Client, error) {
	opts := []client.Opt{client.FromEnv, client.WithAPIVersionNegotiation()}
	if cfg.Host != "" {
		opts = append(opts, client.WithHost(cfg.Host))
	}
	api, err := client.NewClientWithOpts(opts...)
	if err != nil {
		return nil, runtime.Fail(runtime.ErrUnavailable, err, "Docker engine")
	}
	return api, nil
}

// Probe asks whether an engine answers, and says which.
func Probe(ctx context.Context, cfg Config) (string, error) {
	api, err := dial(cfg)
	if err != nil {
		return "", err
	}
	defer api.Close()
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	v, err := api.ServerVersion(ctx)
	if err != nil {
		return "", fmt.Errorf("no Docker engine answers at %s: %w", api.DaemonHost(), err)
	}
	return fmt.Sprintf("Docker engine %s answers at %s", v.Version, api.DaemonHost()), nil
}

// Open connects and goes on copying the output of containers that a former
// driver started.
func Open(ctx context.Context, cfg Config) (*Runtime, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	api, err := dial(cfg)
	if err != nil {
		return nil, err
	}
	pingCtx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	info, err := api.Info(pingCtx)
	if err != nil {
		return nil, errors.Join(runtime.Fail(runtime.ErrUnavailable, err, "Docker engine at %s", api.DaemonHost()), api.Close())
	}
	r := &Runtime{cfg: cfg, api: api, memory: info.MemTotal, copies: map[string]*copying{}}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	if err := r.resumeLogs(ctx); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	r.owned.Go(func() { logs.RunRotation(r.ctx, cfg.Log, r.logDirs) })
	return r, nil
}

// Name is "docker".
func (r *Runtime) Name() string { return "docker" }

// Close ends the copying of output, which a later driver takes up.
func (r *Runtime) Close() error {
	r.cancel()
	r.owned.Wait()
	return r.api.Close()
}

// Info asks the engine.
func (r *Runtime) Info(ctx context.Context) (runtime.Info, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	i, err := r.api.Info(ctx)
	if err != nil {
		return runtime.Info{}, wrap(err, "Docker engine")
	}
	out := runtime.Info{Name: r.Name(), Version: i.ServerVersion, OCIRuntime: i.DefaultRuntime, Cgroup: "v" + i.CgroupVersion, Storage: i.Driver,
		Features: runtime.Features{Processes: true, MemoryLimit: i.MemoryLimit, CPULimit: i.CPUCfsQuota, KeepsExits: true}}
	for _, n := range i.Plugins.Network {
		out.Features.Bridge = out.Features.Bridge || n == "bridge"
	}
	for _, s := range i.SecurityOptions {
		out.Features.Seccomp = out.Features.Seccomp || len(s) >= 12 && s[:12] == "name=seccomp"
	}
	if !i.LiveRestoreEnabled {
		out.Warnings = append(out.Warnings, "a restart of Docker stops every container: set \"live-restore\" in its daemon.json")
	}
	return out, nil
}

// wrap turns the engine's error classes into ours.
func wrap(err error, format string, args ...any) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return runtime.Fail(nil, err, format, args...)
	case errdefs.IsNotFound(err):
		return runtime.Fail(runtime.ErrNotFound, nil, format, args...)
	case client.IsErrConnectionFailed(err):
		return runtime.Fail(runtime.ErrUnavailable, err, format, args...)
	}
	return runtime.Fail(nil, err, format, args...)
}
