package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

func mount(source, target, kind string, flags uintptr, data string) error {
	if err := syscall.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mount %s at %s: %w", kind, target, err)
	}
	return nil
}

func bind(source, target string) error {
	if err := syscall.Mount(source, target, "", syscall.MS_BIND|syscall.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s at %s: %w", source, target, err)
	}
	return nil
}

// buildRoot makes the machine's file tree and pivots into it: the host's root
// copy-on-write, with everything that tells machines apart put over it. It
// runs in the machine's own mount namespace; the host sees none of it.
func buildRoot(cfg machineConfig) error {
	list, err := hierarchies() // before /sys is replaced
	if err != nil {
		return err
	}
	if err := mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	base := filepath.Join(cfg.Dir, "root")
	if err := mount("tmpfs", base, "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	root, upper, work := filepath.Join(base, "merged"), filepath.Join(base, "upper"), filepath.Join(base, "work")
	for _, dir := range []string{root, upper, work} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if err := mount("overlay", root, "overlay", 0, fmt.Sprintf("lowerdir=/,upperdir=%s,workdir=%s", upper, work)); err != nil {
		return fmt.Errorf("%w: the kernel needs overlayfs (modprobe overlay)", err)
	}
	if err := fillRoot(cfg, root, list); err != nil {
		return err
	}
	return pivot(root)
}

func fillRoot(cfg machineConfig, root string, list []hierarchy) error {
	in := func(path string) string { return filepath.Join(root, path) }
	// An overlay shows one file system; programs on others are bound in.
	for _, dir := range []string{"/usr", "/opt", "/home", "/nix"} {
		if isMountPoint(dir) {
			if err := bind(dir, in(dir)); err != nil {
				return err
			}
		}
	}
	steps := []func() error{
		func() error {
			return mount("proc", in("/proc"), "proc", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, "")
		},
		func() error {
			return mount("sysfs", in("/sys"), "sysfs", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, "")
		},
		func() error { return mountCgroups(root, list) },
		func() error { return bind("/dev", in("/dev")) },
		func() error {
			return mount("tmpfs", in("/dev/shm"), "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "mode=1777")
		},
		func() error {
			return mount("tmpfs", in("/run"), "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "mode=755")
		},
		func() error {
			return mount("tmpfs", in("/tmp"), "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "mode=1777")
		},
		func() error { return hide(root, cfg.Lab) },
		func() error { return bindNew(filepath.Join(cfg.Dir, "run"), in(runDir)) },
		func() error { return bindNew(filepath.Join(cfg.Dir, "data"), in(dataDir)) },
		func() error {
			if !cfg.Lying {
				return nil
			}
			return bindNew(filepath.Join(cfg.Dir, "data"), in(platter))
		},
		func() error { return bindNew(filepath.Join(cfg.Dir, "bin"), in(binaryDir)) },
		func() error { return writeEtc(cfg, in("/etc")) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// hide covers the lab's directory: a machine cannot look at another's disk.
func hide(root, dir string) error {
	if _, err := os.Stat(filepath.Join(root, dir)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return mount("tmpfs", filepath.Join(root, dir), "tmpfs", syscall.MS_RDONLY, "size=4k")
}

func bindNew(source, target string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	return bind(source, target)
}

// writeEtc replaces files by new ones: some may be links into /run.
func writeEtc(cfg machineConfig, etc string) error {
	for name, text := range map[string]string{
		"hostname": cfg.Name + "\n",
		"hosts":    cfg.Hosts,
		// Every node answers DNS itself. The short limits are for the time
		// before its service runs.
		"resolv.conf": "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
	} {
		path := filepath.Join(etc, name)
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// pivot makes root the root and drops the host's tree (pivot_root(2), the
// variant without a directory for the old root).
func pivot(root string) error {
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := syscall.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := syscall.Unmount(".", syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("drop the host's root: %w", err)
	}
	return os.Chdir("/")
}

func isMountPoint(path string) bool {
	for _, p := range mountPoints() {
		if p == path {
			return true
		}
	}
	return false
}

// mountPoints lists this process's mounts, oldest first.
func mountPoints() []string {
	text, _ := os.ReadFile("/proc/self/mountinfo")
	var points []string
	for _, line := range strings.Split(string(text), "\n") {
		if f := strings.Fields(line); len(f) > 4 {
			points = append(points, f[4])
		}
	}
	return points
}
