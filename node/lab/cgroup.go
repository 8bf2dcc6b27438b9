package lab

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// hierarchy is one mounted control group tree of the host. There is one (v2),
// many (v1), or both (hybrid).
type hierarchy struct {
	point   string // mount point
	v2      bool
	options string // v1: the controllers or the name, as mount(8) takes them
}

func hierarchies() ([]hierarchy, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var list []hierarchy
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if h, ok := parseHierarchy(lines.Text()); ok {
			list = append(list, h)
		}
	}
	if len(list) == 0 {
		return nil, errors.New("no control group hierarchy is mounted: containers need one; mount cgroup2 at /sys/fs/cgroup")
	}
	return list, nil
}

// parseHierarchy reads one line of mountinfo (proc(5)).
func parseHierarchy(line string) (hierarchy, bool) {
	left, right, ok := strings.Cut(line, " - ")
	mount, super := strings.Fields(left), strings.Fields(right)
	if !ok || len(mount) < 5 || len(super) < 3 || !strings.HasPrefix(mount[4], "/sys/fs/cgroup") {
		return hierarchy{}, false
	}
	h := hierarchy{point: mount[4]}
	switch super[0] {
	case "cgroup2":
		h.v2 = true
		return h, true
	case "cgroup":
	default:
		return hierarchy{}, false
	}
	var keep []string
	for _, o := range strings.Split(super[2], ",") {
		switch {
		case o == "rw", o == "ro", o == "xattr", o == "noprefix", o == "clone_children", strings.HasPrefix(o, "release_agent="):
		default:
			keep = append(keep, o)
		}
	}
	h.options = strings.Join(keep, ",")
	return h, true
}

func (h hierarchy) controls(controller string) bool {
	for _, o := range strings.Split(h.options, ",") {
		if o == controller {
			return true
		}
	}
	return false
}

// enterCgroups puts this process into group in every hierarchy.
func enterCgroups(group string) error {
	list, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range list {
		dir := h.point
		for _, part := range strings.Split(group, "/") {
			if h.v2 {
				enableControllers(dir)
			}
			dir = filepath.Join(dir, part)
			if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("make control group: %w", err)
			}
			if h.controls("cpuset") {
				// A new group may use no cpu and no memory node until told so.
				for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
					if err := inherit(dir, file); err != nil {
						return err
					}
				}
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil {
			return fmt.Errorf("enter control group: %w", err)
		}
	}
	return nil
}

func inherit(dir, file string) error {
	value, err := os.ReadFile(filepath.Join(filepath.Dir(dir), file))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, file), value, 0)
}

// enableControllers hands every controller on to the groups below dir. One
// that cannot be handed on is not an error: a v1 tree may hold it.
func enableControllers(dir string) {
	list, _ := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	for _, c := range strings.Fields(string(list)) {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0)
	}
}

// mountCgroups gives a machine its own view: the root of each hierarchy is
// the machine's group, because the machine has its own cgroup namespace.
func mountCgroups(root string, list []hierarchy) error {
	target := func(h hierarchy) string { return filepath.Join(root, h.point) }
	if len(list) == 1 && list[0].v2 {
		if err := mount("cgroup2", target(list[0]), "cgroup2", 0, ""); err != nil {
			return err
		}
		return leaveRoot(target(list[0]))
	}
	if err := mount("tmpfs", filepath.Join(root, "/sys/fs/cgroup"), "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	for _, h := range list {
		if err := os.MkdirAll(target(h), 0o755); err != nil {
			return err
		}
		kind := "cgroup"
		if h.v2 {
			kind = "cgroup2"
		}
		if err := mount(kind, target(h), kind, 0, h.options); err != nil {
			return err
		}
		for _, c := range strings.Split(h.options, ",") { // cpu -> cpu,cpuacct
			if link := filepath.Join(root, "/sys/fs/cgroup", c); strings.Contains(h.options, ",") {
				_ = os.Symlink(filepath.Base(h.point), link)
			}
		}
	}
	return nil
}

// leaveRoot moves pid 1 into a leaf: a v2 group with processes of its own can
// hand no controllers to its children.
func leaveRoot(point string) error {
	leaf := filepath.Join(point, "init.scope")
	if err := os.MkdirAll(leaf, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte("0"), 0); err != nil {
		return err
	}
	enableControllers(point)
	return nil
}

// freeze stops or thaws every process below group at once.
func freeze(group string, on bool) error {
	list, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range list {
		switch {
		case h.controls("freezer"):
			return waitWrite(filepath.Join(h.point, group, "freezer.state"), map[bool]string{true: "FROZEN", false: "THAWED"}[on])
		case h.v2 && len(list) == 1:
			return waitWrite(filepath.Join(h.point, group, "cgroup.freeze"), map[bool]string{true: "1", false: "0"}[on])
		}
	}
	return errors.New("this kernel has no freezer control group: a machine cannot be paused")
}

// waitWrite writes value until the file shows it: freezing a busy group is
// FREEZING for a while.
func waitWrite(file, value string) error {
	for range 500 {
		if err := os.WriteFile(file, []byte(value), 0); err != nil {
			return err
		}
		got, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if strings.TrimSpace(string(got)) == value {
			return nil
		}
		time.Sleep(2 * time.Millisecond)
	}
	return fmt.Errorf("%s does not become %s", file, value)
}

// groupProcesses returns what lives in group or below it.
func groupProcesses(group string) []process {
	list, err := hierarchies()
	if err != nil {
		return nil // nothing mounted, nothing in it
	}
	var found []process
	for _, h := range list {
		_ = filepath.WalkDir(filepath.Join(h.point, group), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() {
				return nil // a group may vanish while we look
			}
			pids, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
			for _, field := range strings.Fields(string(pids)) {
				pid, _ := strconv.Atoi(field)
				if p, err := processOf(pid); err == nil && p.alive() {
					found = append(found, p)
				}
			}
			return nil
		})
	}
	return found
}

// removeCgroups removes group and all below it in every hierarchy. The
// processes in it must be dead; their groups stay busy for a moment.
func removeCgroups(group string) error {
	list, err := hierarchies()
	if err != nil {
		return nil // nothing mounted, nothing made
	}
	var errs []error
	for _, h := range list {
		errs = append(errs, removeTree(filepath.Join(h.point, group)))
	}
	return errors.Join(errs...)
}

func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	for range 1000 {
		err = unix.Rmdir(dir)
		if err == nil || err == syscall.ENOENT {
			return nil
		}
		if err != syscall.EBUSY {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	return fmt.Errorf("remove control group %s: %w", dir, err)
}

// populated returns the groups below group that have processes of their own,
// without the mount point of their hierarchy.
func populated(group string) []string {
	list, err := hierarchies()
	if err != nil || len(list) == 0 {
		return nil
	}
	h := list[0] // every process is in every hierarchy
	var found []string
	_ = filepath.WalkDir(filepath.Join(h.point, group), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil // a group may vanish while we look
		}
		if pids, _ := os.ReadFile(filepath.Join(path, "cgroup.procs")); len(strings.TrimSpace(string(pids))) > 0 {
			found = append(found, strings.TrimPrefix(path, h.point+"/"))
		}
		return nil
	})
	return found
}
