package containerd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay/overlayutils"
	"github.com/containerd/containerd/v2/version"
	"github.com/containerd/errdefs"

	"appliance/node/runtime"
	"appliance/node/runtime/logs"
	"appliance/node/runtime/network"
)

// Runtime is the driver for one containerd.
type Runtime struct {
	cfg         Config
	client      *client.Client
	srv         *embedded // nil when external
	net         *network.Network
	oci         ociRuntime
	snapshotter string
	bootID      string
	runID       string // of the run directory

	cancel context.CancelFunc // ends the owned goroutines
	owned  sync.WaitGroup
	locks  keyLocks

	mu       sync.Mutex
	started  chan struct{}   // closed and replaced at each Start: wakes Waits
	starting map[string]bool // between the marker and the task
}

var _ runtime.Runtime = (*Runtime)(nil)

// dialTimeout bounds the connection to an external containerd.
const dialTimeout = 5 * time.Second

// Open starts the embedded server or connects to the external one, and
// clears what a crash left behind. Containers of an earlier run go on.
func Open(ctx context.Context, cfg Config) (_ *Runtime, err error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if err := cfg.makeDirs(); err != nil {
		return nil, err
	}
	bootID, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("containerd driver: %w", err)
	}
	runID, err := cfg.runID()
	if err != nil {
		return nil, fmt.Errorf("containerd driver: %w", err)
	}
	r := &Runtime{cfg: cfg, bootID: strings.TrimSpace(string(bootID)), runID: runID, started: make(chan struct{}), starting: map[string]bool{}, snapshotter: "overlayfs"}
	defer func() {
		if err != nil {
			r.closeEngine()
		}
	}()
	if err := r.connect(ctx); err != nil {
		return nil, err
	}
	if err := overlayutils.Supported(filepath.Join(cfg.Root, "probe")); err != nil && cfg.embedded() {
		r.snapshotter = "native" // overlay on overlay, or an old file system
	}
	if r.net, err = network.Open(cfg.Network); err != nil {
		return nil, err
	}
	if err := r.recover(ctx); err != nil {
		return nil, err
	}
	own, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	r.owned.Go(func() { logs.RunRotation(own, cfg.Log, func() []string { return r.logDirs(own) }) })
	return r, nil
}

func (r *Runtime) connect(ctx context.Context) (err error) {
	if r.cfg.embedded() {
		if r.oci, err = findOCIRuntime(ctx, r.cfg); err != nil {
			return err
		}
		r.srv, r.client, err = startEmbedded(r.cfg)
		return err
	}
	if conn, err := net.DialTimeout("unix", r.cfg.Address, dialTimeout); err != nil {
		return runtime.Fail(runtime.ErrUnavailable, err, "containerd at %s", r.cfg.Address)
	} else if err := conn.Close(); err != nil { // gRPC would try again for long
		return runtime.Fail(runtime.ErrUnavailable, err, "containerd at %s", r.cfg.Address)
	}
	r.client, err = client.New(r.cfg.Address, client.WithDefaultNamespace(Namespace), client.WithTimeout(dialTimeout))
	if err != nil {
		return runtime.Fail(runtime.ErrUnavailable, err, "containerd at %s", r.cfg.Address)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if _, err := r.client.Version(ctx); err != nil {
		return runtime.Fail(runtime.ErrUnavailable, err, "containerd at %s", r.cfg.Address)
	}
	return nil
}

// recover removes networks, files and cgroups whose container is gone.
func (r *Runtime) recover(ctx context.Context) error {
	list, err := r.List(ctx, nil)
	if err != nil {
		return err
	}
	live := map[string]bool{}
	for _, st := range list {
		live[st.ID] = true
	}
	var errs []error
	errs = append(errs, r.net.Recover(live))
	r.removeDeadSockets()
	entries, _ := os.ReadDir(r.cfg.files())
	for _, e := range entries {
		if !live[e.Name()] {
			errs = append(errs, os.RemoveAll(filepath.Join(r.cfg.files(), e.Name())))
		}
	}
	if err := removeEmptyCgroups(r.cfg.cgroup()); err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		r.cfg.Log.Warn("leftovers of an earlier run remain", "err", err)
	}
	return nil
}

func (r *Runtime) logDirs(ctx context.Context) []string {
	list, err := r.List(ctx, nil)
	if err != nil {
		return nil // the caller of anything else hears of it
	}
	var dirs []string
	for _, st := range list {
		if st.State == runtime.StateRunning && st.LogDir != "" {
			dirs = append(dirs, st.LogDir)
		}
	}
	return dirs
}

// Name is "embedded" or "containerd".
func (r *Runtime) Name() string {
	if r.cfg.embedded() {
		return "embedded"
	}
	return "containerd"
}

// Close ends the driver, and the embedded server. Shims and containers go on.
func (r *Runtime) Close() error {
	r.cancel()
	r.owned.Wait()
	return errors.Join(r.net.Close(), r.closeEngine())
}

func (r *Runtime) closeEngine() error {
	var err error
	if r.client != nil {
		err = r.client.Close()
	}
	if r.srv != nil {
		r.srv.stop()
	}
	return err
}

// Info asks the engine, so that it is a health probe.
func (r *Runtime) Info(ctx context.Context) (info runtime.Info, err error) {
	info = runtime.Info{Name: r.Name(), Cgroup: "v1", Storage: r.snapshotter, OCIRuntime: r.oci.String()}
	if unifiedCgroup() {
		info.Cgroup = "v2"
	}
	if info.Version, err = r.version(ctx); err != nil {
		return info, err
	}
	netErr := r.net.Probe()
	info.Features = runtime.Features{Processes: true, Bridge: netErr == nil, MemoryLimit: true, CPULimit: true,
		Seccomp: !r.cfg.embedded() || r.oci.seccomp, KeepsExits: r.cfg.embedded()}
	if netErr != nil {
		info.Warnings = append(info.Warnings, "bridge networking does not work: "+netErr.Error())
	}
	if !info.Features.Seccomp {
		info.Warnings = append(info.Warnings, "containers run without a seccomp filter: "+r.oci.path+" was built without it")
	}
	if r.snapshotter == "native" {
		info.Warnings = append(info.Warnings, "overlayfs does not work under "+r.cfg.Root+": every container copies its whole image")
	}
	return info, nil
}

// version also proves that the engine answers.
func (r *Runtime) version(ctx context.Context) (string, error) {
	if r.cfg.embedded() { // its version service has no in-process form
		_, err := r.client.ContainerService().List(r.ctx(ctx), "id==none")
		return version.Version, wrap(err, "containerd")
	}
	v, err := r.client.Version(r.ctx(ctx))
	if err != nil {
		return "", runtime.Fail(runtime.ErrUnavailable, err, "containerd at %s", r.cfg.Address)
	}
	return v.Version, nil
}

func (r *Runtime) ctx(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, Namespace)
}

// wrap turns containerd's error classes into ours.
func wrap(err error, format string, args ...any) error {
	switch {
	case err == nil:
		return nil
	case errdefs.IsNotFound(err):
		return runtime.Fail(runtime.ErrNotFound, nil, format, args...)
	case errdefs.IsCanceled(err): // a gRPC status hides the context's error
		return runtime.Fail(context.Canceled, nil, format, args...)
	case errdefs.IsDeadlineExceeded(err):
		return runtime.Fail(context.DeadlineExceeded, nil, format, args...)
	case errdefs.IsUnavailable(err):
		return runtime.Fail(runtime.ErrUnavailable, err, format, args...)
	}
	return runtime.Fail(nil, err, format, args...)
}

// keyLocks serialises work on one container.
type keyLocks struct {
	mu sync.Mutex
	m  map[string]*keyLock
}

type keyLock struct {
	mu    sync.Mutex
	users int
}

// lock returns the unlock.
func (k *keyLocks) lock(key string) func() {
	k.mu.Lock()
	if k.m == nil {
		k.m = map[string]*keyLock{}
	}
	l := k.m[key]
	if l == nil {
		l = &keyLock{}
		k.m[key] = l
	}
	l.users++
	k.mu.Unlock()
	l.mu.Lock()
	return func() {
		l.mu.Unlock()
		k.mu.Lock()
		defer k.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(k.m, key)
		}
	}
}
