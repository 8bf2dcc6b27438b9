package backend

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"appliance/node/runtime"
	"appliance/node/runtime/containerd"
	"appliance/node/runtime/runtimetest"
)

func TestMain(m *testing.M) {
	if containerd.Applet() {
		return
	}
	os.Exit(runtimetest.Isolate(m))
}

func config(t *testing.T) Config {
	runtimetest.NeedsRoot(t)
	run, err := os.MkdirTemp("/run", "b")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	return Config{Node: runtimetest.CgroupPrefix + filepath.Base(run), Data: runtimetest.Dir(t), Run: run,
		DockerHost: "unix://" + filepath.Join(run, "docker.sock"), ContainerdAddress: filepath.Join(run, "containerd.sock")}
}

func TestChooseEmbeddedOnBareMachine(t *testing.T) {
	runtimetest.NeedsRoot(t)
	rt, why, err := Choose(t.Context(), "auto", config(t))
	if err != nil {
		t.Fatal(err)
	}
	defer rt.Close()
	if rt.Name() != "embedded" || !strings.Contains(why, "no Docker engine answers") {
		t.Errorf("%s: %s", rt.Name(), why)
	}
}

func TestChooseNamedIsNeverReplaced(t *testing.T) {
	runtimetest.NeedsRoot(t)
	for _, name := range []string{"docker", "containerd"} {
		if rt, _, err := Choose(t.Context(), name, config(t)); !errors.Is(err, runtime.ErrUnavailable) {
			t.Errorf("%s: %v, %v; want ErrUnavailable", name, rt, err)
		}
	}
	if _, _, err := Choose(t.Context(), "podman", config(t)); err == nil || !strings.Contains(err.Error(), "docker, embedded, containerd") {
		t.Errorf("%v", err)
	}
}
