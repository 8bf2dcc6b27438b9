package containerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/containerd/containerd/v2/client"
	_ "github.com/containerd/containerd/v2/cmd/containerd/builtins" // the server's plugins
	"github.com/containerd/containerd/v2/cmd/containerd/server"
	srvconfig "github.com/containerd/containerd/v2/cmd/containerd/server/config"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/containerd/v2/version"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"

	"appliance/node/runtime"
)

// embedded is a containerd server inside this process.
type embedded struct {
	srv    *server.Server
	cancel context.CancelFunc
}

// The plugin registry is global to the process, so the server's only way to
// hand us its client is global too. The lock is held from New to Start.
var (
	bootLock   sync.Mutex
	bootClient *client.Client
	register   = sync.OnceFunc(func() {
		registry.Register(&plugin.Registration{
			Type: "appliance.v1", ID: "client",
			Requires: []plugin.Type{plugins.EventPlugin, plugins.LeasePlugin, plugins.SandboxStorePlugin,
				plugins.TransferPlugin, plugins.MountManagerPlugin, plugins.ServicePlugin},
			InitFn: func(ic *plugin.InitContext) (any, error) {
				c, err := client.New("", client.WithDefaultNamespace(Namespace), client.WithInMemoryServices(ic))
				bootClient = c
				return c, err
			},
		})
	})
)

// disabled are plugins that we do not use: each costs memory or start-up
// time, and those with metrics register them globally, which a second server in
// one process cannot do again.
var disabled = []string{
	"io.containerd.monitor.task.v1.cgroups",
	"io.containerd.monitor.container.v1.restart",
	"io.containerd.internal.v1.opt", // would make /opt/containerd
	"io.containerd.http.v1.pprof",
	"io.containerd.nri.v1.nri",
	"io.containerd.snapshotter.v1.blockfile",
	"io.containerd.snapshotter.v1.erofs",
	"io.containerd.differ.v1.erofs",
	"io.containerd.mount-handler.v1.erofs",
	"io.containerd.image-verifier.v1.bindir",
	"io.containerd.server.v1.metrics",
	"io.containerd.server.v1.debug",
	"io.containerd.metrics.v1.grpc-prometheus",
	"io.containerd.metrics.v1.grpc-otel",
}

func startEmbedded(cfg Config) (*embedded, *client.Client, error) {
	if err := linkShim(cfg); err != nil {
		return nil, nil, err
	}
	captureLogs(cfg.Log)
	if err := mount.SetTempMountLocation(cfg.tmp()); err != nil {
		return nil, nil, fmt.Errorf("containerd server: %w", err)
	}
	if _, err := mount.CleanupTempMounts(0); err != nil {
		cfg.Log.Warn("mounts of an earlier run remain", "dir", cfg.tmp(), "err", err)
	}
	conf := &srvconfig.Config{
		Version: version.ConfigVersion,
		Root:    cfg.store(), State: cfg.state(), TempDir: cfg.tmp(),
		DisabledPlugins: disabled,
		Plugins: map[string]any{
			"io.containerd.server.v1.grpc":  map[string]any{"address": cfg.socket()},
			"io.containerd.server.v1.ttrpc": map[string]any{"address": cfg.socket() + ".ttrpc"},
			"io.containerd.shim.v1.manager": map[string]any{"socket_dir": cfg.shims()},
		},
	}
	if err := server.CreateTopLevelDirectories(conf); err != nil {
		return nil, nil, runtime.Fail(nil, err, "containerd server")
	}
	bootLock.Lock()
	defer bootLock.Unlock()
	register()
	bootClient = nil
	ctx, cancel := context.WithCancel(context.Background())
	srv, err := server.New(ctx, conf)
	if err != nil {
		cancel()
		return nil, nil, runtime.Fail(nil, err, "start containerd server")
	}
	e := &embedded{srv: srv, cancel: cancel}
	if bootClient == nil {
		e.stop()
		return nil, nil, runtime.Fail(nil, errors.New("a plugin failed to load; the debug log names it"), "start containerd server")
	}
	if err := srv.Start(ctx); err != nil {
		e.stop()
		return nil, nil, runtime.Fail(nil, err, "start containerd server")
	}
	srv.Wait()
	return e, bootClient, nil
}

func (e *embedded) stop() {
	e.srv.Stop()
	e.cancel()
}

// linkShim points the shim's name at the running binary. An upgrade renames
// another binary over ours, so the link stays true.
func linkShim(cfg Config) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own binary for the shim: %w", err)
	}
	if old, err := os.Readlink(cfg.shimLink()); err == nil && old == self {
		return nil
	}
	tmp := cfg.shimLink() + ".tmp"
	_ = os.Remove(tmp)
	if err := os.Symlink(self, tmp); err != nil {
		return runtime.Fail(nil, err, "link the shim")
	}
	if err := os.Rename(tmp, cfg.shimLink()); err != nil {
		return runtime.Fail(nil, err, "link the shim")
	}
	return nil
}
