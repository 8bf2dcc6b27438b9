package runtimetest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"syscall"
	"testing"

	"appliance/node/agent"
	"appliance/node/needs"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// isolatedEnv marks the inner process of Isolate and holds its directory.
const isolatedEnv = "RUNTIMETEST_DIR"

// CgroupPrefix begins the node names of tests, so that a sweep knows them.
const CgroupPrefix = "rtt-"

// Isolate runs the package's tests in namespaces of their own (network,
// mounts, processes, host name): when the test process ends, however it ends,
// the kernel ends every shim, container, engine and interface with it. Call
// it in TestMain after the drivers' applets:
//
//	func TestMain(m *testing.M) {
//		if containerd.Applet() {
//			return
//		}
//		os.Exit(runtimetest.Isolate(m))
//	}
//
// Without root the tests run where they are and skip what needs it.
func Isolate(m *testing.M) int {
	agent.Applet() // in a container this binary is the wrapper that has the secrets
	if os.Getenv(isolatedEnv) != "" {
		if err := prepareInside(); err != nil {
			fmt.Fprintln(os.Stderr, "isolate:", err)
			return 1
		}
		return m.Run()
	}
	if os.Geteuid() != 0 {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "rtt-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "isolate:", err)
		return 1
	}
	defer sweep(dir)
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	// Every container starts our own binary as a shim: under the race detector
	// each would idle for a second before it exits.
	cmd.Env = append(os.Environ(), isolatedEnv+"="+dir, "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL,
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS}
	goruntime.LockOSThread() // the death signal is tied to the thread
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(1, exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "isolate:", err)
		return 1
	}
	return 0
}

// prepareInside finishes what clone could not: private mounts, /proc,
// a tmpfs on /run and on /opt, where a distribution's containerd makes a
// directory whatever it is told, loopback up.
func prepareInside() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for _, m := range []struct{ fs, dir string }{{"proc", "/proc"}, {"tmpfs", "/run"}, {"tmpfs", "/opt"}} {
		if err := unix.Mount(m.fs, m.dir, m.fs, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	return err
}

// NeedsRoot ends a test that Isolate could not isolate.
func NeedsRoot(t testing.TB) {
	t.Helper()
	if os.Getenv(isolatedEnv) == "" {
		needs.Missing(t, "needs root: real containers are tested as root only")
	}
}

// Dir is a directory on disk that an engine can mount from.
func Dir(t testing.TB) string {
	t.Helper()
	dir := os.Getenv(isolatedEnv)
	if dir == "" {
		return t.TempDir()
	}
	d, err := os.MkdirTemp(dir, "t-")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// sweep removes what a killed test left outside of its namespaces: files and
// empty cgroups, also those of earlier runs.
func sweep(dir string) {
	_ = os.RemoveAll(dir)
	dirs, _ := filepath.Glob("/sys/fs/cgroup/*/appliance/" + CgroupPrefix + "*/*")
	parents, _ := filepath.Glob("/sys/fs/cgroup/*/appliance/" + CgroupPrefix + "*")
	unified, _ := filepath.Glob("/sys/fs/cgroup/appliance/" + CgroupPrefix + "*/*")
	tops, _ := filepath.Glob("/sys/fs/cgroup/appliance/" + CgroupPrefix + "*")
	for _, d := range append(append(dirs, unified...), append(parents, tops...)...) {
		if !strings.HasSuffix(d, ".procs") {
			_ = unix.Rmdir(d) // busy: another run's
		}
	}
	for _, d := range []string{"/sys/fs/cgroup/appliance", "/sys/fs/cgroup/*/appliance"} {
		top, _ := filepath.Glob(d)
		for _, t := range top {
			_ = unix.Rmdir(t)
		}
	}
}
