package containerd

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/containerd/containerd/v2/core/mount"
)

// bundle is where the embedded engine keeps a task while it lives.
func (c *Config) bundle(id string) string {
	return filepath.Join(c.state(), "io.containerd.runtime.v2.task", Namespace, id)
}

// settleTimeout is longer than the engine gives itself to clean up.
const settleTimeout = 10 * time.Second

// settle waits for the engine to clean up after a shim that died, which ends
// the container's processes, and does so itself when the engine cannot.
func (r *Runtime) settle(ctx context.Context, id string) error {
	if !r.cfg.embedded() {
		return nil
	}
	bundle := r.cfg.bundle(id)
	for deadline := time.Now().Add(settleTimeout); time.Now().Before(deadline); {
		if _, err := os.Stat(bundle); errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	r.cfg.Log.Warn("the engine left a dead task; it is removed by force", "container", id)
	cgroup := filepath.Join(r.cfg.cgroup(), id)
	for _, pid := range cgroupPids(cgroup) {
		_ = unix.Kill(pid, unix.SIGKILL) // gone is as good
	}
	if err := mount.UnmountRecursive(filepath.Join(bundle, "rootfs"), unix.MNT_DETACH); err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(bundle), os.RemoveAll(filepath.Join(r.cfg.runc(), Namespace, id)), removeEmptyCgroups(cgroup))
}

// removeDeadSockets clears what killed shims left. Nothing starts a shim
// meanwhile: it runs in Open only.
func (r *Runtime) removeDeadSockets() {
	socks, _ := filepath.Glob(filepath.Join(r.cfg.shims(), "*"))
	for _, s := range socks {
		c, err := net.DialTimeout("unix", s, dialTimeout)
		if err == nil {
			c.Close()
		} else if errors.Is(err, unix.ECONNREFUSED) {
			_ = os.Remove(s) // a dead file, found again next time
		}
	}
}
