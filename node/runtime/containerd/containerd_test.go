package containerd

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"

	"appliance/node/runtime"
	"appliance/node/runtime/runtimetest"
)

func TestMain(m *testing.M) {
	if Applet() {
		return
	}
	os.Exit(runtimetest.Isolate(m))
}

func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func testConfig(t testing.TB) Config {
	runtimetest.NeedsRoot(t)
	run, err := os.MkdirTemp("/run", "a")
	if err != nil {
		t.Fatal(err)
	}
	return Config{Node: runtimetest.CgroupPrefix + filepath.Base(run), Root: runtimetest.Dir(t), Run: run, Log: testLog(t)}
}

func TestEmbedded(t *testing.T) {
	cfg := testConfig(t)
	t.Cleanup(func() {
		// Two of the server's goroutines have no end in its own code: the event
		// exchange, and a note to the garbage collector that has just stopped.
		goleak.VerifyNone(t, goleak.IgnoreTopFunction("github.com/docker/go-events.(*Broadcaster).run"),
			goleak.IgnoreTopFunction("github.com/containerd/containerd/v2/plugins/gc.(*gcScheduler).mutationCallback.func1"))
	})
	t.Cleanup(func() { nothingLeft(t, cfg) })
	runtimetest.Conformance(t, func(t *testing.T) runtime.Runtime {
		rt, err := Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		return rt
	})
}

// nothingLeft looks for what removed containers must take along.
func nothingLeft(t *testing.T, cfg Config) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(mounts), "\n") {
		if strings.Contains(line, cfg.Run) || strings.Contains(line, cfg.Root) {
			t.Error("mount left:", line)
		}
	}
	runtimetest.Eventually(t, "no shim runs", func() bool { return len(shims(t)) == 0 })
	for _, pattern := range []string{cfg.exits() + "/*", cfg.files() + "/*", cfg.fifos() + "/*", cfg.shims() + "/*", cfg.runc() + "/*/*",
		cfg.Run + "/netns/*", cfg.state() + "/io.containerd.runtime.v2.task/appliance/*", "/sys/fs/cgroup/*/appliance/" + cfg.Node + "/*/", "/sys/fs/cgroup/appliance/" + cfg.Node + "/*/"} {
		if left, _ := filepath.Glob(pattern); len(left) > 0 {
			t.Error("left:", left)
		}
	}
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, "appl") {
			t.Error("link left:", l.Attrs().Name)
		}
	}
	nft, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	tables, err := nft.ListTables()
	if err != nil {
		t.Fatal(err)
	}
	for _, tb := range tables {
		t.Error("nftables table left:", tb.Name)
	}
}

// shims lists the processes that run as our shim.
func shims(t *testing.T) (pids []string) {
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range procs {
		if b, err := os.ReadFile(p); err == nil && strings.Contains(string(b), "-namespace\x00"+Namespace) {
			pids = append(pids, p)
		}
	}
	return pids
}

// A plugin that is renamed upstream would silently run again.
func TestDisabledPluginsExist(t *testing.T) {
	known := map[string]bool{}
	for _, r := range registry.Graph(func(*plugin.Registration) bool { return false }) {
		known[r.URI()] = true
	}
	for _, id := range disabled {
		if !known[id] {
			t.Errorf("there is no plugin %s", id)
		}
	}
	if t.Failed() {
		for id := range known {
			t.Log(id)
		}
	}
}
