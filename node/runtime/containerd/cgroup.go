package containerd

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

// unifiedCgroup reports whether the machine runs cgroup v2 alone.
func unifiedCgroup() bool {
	var st unix.Statfs_t
	return unix.Statfs(cgroupRoot, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// oomKilled tells whether the kernel killed a process of the cgroup for lack
// of memory. It works until the cgroup is removed.
func oomKilled(path string) bool {
	if path == "" {
		return false
	}
	file := filepath.Join(cgroupRoot, "memory", path, "memory.oom_control")
	if unifiedCgroup() {
		file = filepath.Join(cgroupRoot, path, "memory.events")
	}
	return fileCounter(file, "oom_kill") > 0
}

// fileCounter reads "key value" lines.
func fileCounter(file, key string) uint64 {
	f, err := os.Open(file)
	if err != nil {
		return 0
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if k, v, ok := strings.Cut(sc.Text(), " "); ok && k == key {
			n, _ := strconv.ParseUint(v, 10, 64)
			return n
		}
	}
	return 0
}

// swapAccounting reports whether a limit on memory and swap together can be
// set; where it cannot, runc would refuse to start.
func swapAccounting() bool {
	if unifiedCgroup() {
		return true
	}
	_, err := os.Stat(filepath.Join(cgroupRoot, "memory", "memory.memsw.limit_in_bytes"))
	return err == nil
}

// cgroupDirs lists a cgroup's directory in every hierarchy.
func cgroupDirs(path string) []string {
	if unifiedCgroup() {
		return []string{filepath.Join(cgroupRoot, path)}
	}
	dirs, _ := filepath.Glob(filepath.Join(cgroupRoot, "*", path))
	return dirs
}

// removeEmptyCgroups removes the cgroups below path that hold no process, and
// path itself when it is empty then. Leftovers come from a machine's crash.
func removeEmptyCgroups(path string) error {
	var errs []error
	for _, dir := range cgroupDirs(path) {
		children, _ := filepath.Glob(filepath.Join(dir, "*", "cgroup.procs"))
		for _, procs := range children {
			_ = os.Remove(filepath.Dir(procs)) // busy: alive
		}
		if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// cgroupPids lists the processes in a cgroup and its children.
func cgroupPids(path string) []int {
	seen := map[int]bool{}
	var pids []int
	for _, dir := range cgroupDirs(path) {
		files, _ := filepath.Glob(filepath.Join(dir, "*", "cgroup.procs"))
		for _, file := range append(files, filepath.Join(dir, "cgroup.procs")) {
			b, _ := os.ReadFile(file)
			for _, s := range strings.Fields(string(b)) {
				if pid, err := strconv.Atoi(s); err == nil && !seen[pid] {
					seen[pid] = true
					pids = append(pids, pid)
				}
			}
		}
	}
	return pids
}
