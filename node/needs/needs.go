// Package needs says what a test needs of its machine. On a developer's machine a test that lacks something is
// skipped and tells what. Where CI is set in the environment (.ci/run sets it) the same test fails: there everything
// is installed, and a test that was skipped would count as one that passed.
//
// Nothing else skips tests (a house test looks), but rapid's own Skip, which only leaves out a step.
package needs

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// Missing ends a test because its machine lacks something.
func Missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("with CI set nothing is skipped: "+format, args...)
	}
	t.Skipf(format, args...)
}

// Root is for tests that mount, or make namespaces and containers.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, "needs root")
	}
}

// Tool is the path of a program that a Debian package brings.
func Tool(t testing.TB, name, debian string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(t, "%s is missing: apt-get install %s", name, debian)
	}
	return path
}

// Disk is an empty file system of a size as the kernel writes it ("8m"), in memory, so that a test can fill it.
func Disk(t testing.TB, size string) (dir string) {
	t.Helper()
	Root(t)
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatal("mount a tmpfs:", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// Device is for tests that open a device of the kernel.
func Device(t testing.TB, path string) {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		Missing(t, "the kernel offers no %s: %v", path, err)
	}
}

// Time is for tests that -short leaves out.
func Time(t testing.TB, why string) {
	t.Helper()
	if testing.Short() {
		Missing(t, "left out by -short: %s", why)
	}
}
