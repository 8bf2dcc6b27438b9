package doctor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ReserveFile is the name of the reserve below the data directory.
const ReserveFile = "reserve"

// ReadDisk looks at the file system of a data directory.
func ReadDisk(dir string) (Disk, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return Disk{Dir: dir}, err
	}
	d := Disk{Dir: dir, Size: st.Blocks * uint64(st.Bsize), Free: st.Bavail * uint64(st.Bsize), Inodes: st.Files, InodesFree: st.Ffree}
	d.ReserveWanted = ReserveWanted(d.Size)
	if info, err := os.Stat(filepath.Join(dir, ReserveFile)); err == nil {
		d.Reserve = uint64(info.Size())
	}
	return d, nil
}

// KeepReserve makes the reserve or gives it up, as the disk demands, and
// reports whether it was given up now.
func KeepReserve(d *Disk) (gaveUp bool) {
	path := filepath.Join(d.Dir, ReserveFile)
	switch Reserve(d.Free, d.Reserve, d.ReserveWanted) {
	case ReserveGiveUp:
		if err := os.Remove(path); err != nil {
			d.ReserveErr = err.Error()
			return false
		}
		d.Free, d.Reserve = d.Free+d.Reserve, 0
		return true
	case ReserveMake:
		if err := makeReserve(path, d.ReserveWanted); err != nil {
			d.ReserveErr = err.Error()
			return false
		}
		d.Reserve = d.ReserveWanted
	}
	return false
}

// GiveUpReserve frees the reserve of a node that is about to start on a full
// disk.
func GiveUpReserve(dir string) error {
	err := os.Remove(filepath.Join(dir, ReserveFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// makeReserve allocates the blocks (fallocate(2)). A file system that cannot
// gets no reserve: a sparse file would hold nothing.
func makeReserve(path string, size uint64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, int64(size))
	err = errors.Join(err, f.Close())
	if err != nil {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// ReadFiles counts the process' file descriptors.
func ReadFiles() (Files, error) {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return Files{}, err
	}
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return Files{}, err
	}
	return Files{Open: uint64(len(list)), Limit: lim.Cur}, nil
}

// ReadMemory looks at the process, its control group and the machine
// (proc(5), cgroup v2).
func ReadMemory() Memory {
	m := Memory{RSS: field("/proc/self/status", "VmRSS:") << 10, Total: field("/proc/meminfo", "MemTotal:") << 10,
		Available: field("/proc/meminfo", "MemAvailable:") << 10}
	if raw, err := os.ReadFile("/proc/self/cgroup"); err == nil {
		if _, path, ok := strings.Cut(strings.TrimSpace(string(raw)), "0::"); ok {
			m.Limit = cgroupLimit(path)
		}
	}
	return m
}

// cgroupLimit is the tightest memory.max from a group up to the root, 0 if
// there is none.
func cgroupLimit(path string) uint64 {
	var limit uint64
	for p := filepath.Clean("/" + path); ; p = filepath.Dir(p) {
		raw, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", p, "memory.max"))
		if n, perr := strconv.ParseUint(strings.TrimSpace(string(raw)), 10, 64); err == nil && perr == nil && (limit == 0 || n < limit) {
			limit = n
		}
		if p == "/" {
			return limit
		}
	}
}

// field reads a number behind a name in a file of /proc, 0 if it is not there.
func field(path, name string) uint64 {
	raw, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			words := strings.Fields(rest)
			if len(words) > 0 {
				n, _ := strconv.ParseUint(words[0], 10, 64)
				return n
			}
		}
	}
	return 0
}
