package containerd

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Sweep ends everything of a node whose agent will not come back: containers
// by their cgroup, shims by their socket, then mounts and cgroups. It works
// without an engine, also after a crash. The directories stay, as do
// interfaces and rules, which go with the node's network namespace.
func Sweep(cfg Config) error {
	if cfg.Node == "" || !filepath.IsAbs(cfg.Run) || !filepath.IsAbs(cfg.Root) {
		return fmt.Errorf("sweep containers: node, root and run must be given")
	}
	const patience = 5 * time.Second
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		pids := append(cgroupPids(cfg.cgroup()), cfg.shimPids()...)
		if len(pids) == 0 {
			break
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL) // gone is as good
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("sweep containers: processes %v survived SIGKILL for %s", pids, patience)
		}
	}
	err := errors.Join(unmountBelow(cfg.Run), unmountBelow(cfg.Root), removeEmptyCgroups(cfg.cgroup()))
	for _, dir := range cgroupDirs(filepath.Dir(cfg.cgroup())) {
		_ = os.Remove(dir) // not empty: other nodes'
	}
	return err
}

// shimPids finds processes that were given our engine's socket.
func (c *Config) shimPids() (pids []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil || !bytes.Contains(b, []byte("\x00"+Namespace+"\x00")) || !bytes.Contains(b, []byte("\x00"+c.socket()+"\x00")) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// unmountBelow unmounts what is mounted under dir, the last first.
func unmountBelow(dir string) error {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("sweep mounts: %w", err)
	}
	defer f.Close()
	var points []string
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if fields := strings.Fields(sc.Text()); len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			points = append(points, fields[4])
		}
	}
	var errs []error
	for _, p := range slices.Backward(points) {
		if err := unix.Unmount(p, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", p, err))
		}
	}
	return errors.Join(errs...)
}
