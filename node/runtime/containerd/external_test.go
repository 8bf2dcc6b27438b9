package containerd

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"appliance/node/needs"

	"appliance/node/runtime"
	"appliance/node/runtime/runtimetest"
)

// external starts a containerd of the distribution, with private state.
func external(t *testing.T) Config {
	cfg := testConfig(t)
	bin := needs.Tool(t, "containerd", "docker.io")
	dir, err := os.MkdirTemp("/run", "x")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Address = filepath.Join(dir, "c.sock")
	conf := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = %q\n[plugins.\"io.containerd.internal.v1.opt\"]\npath = %q\n",
		runtimetest.Dir(t), filepath.Join(dir, "state"), cfg.Address, filepath.Join(dir, "opt"))
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "--config", filepath.Join(dir, "config.toml"))
	logFile, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = logFile, logFile
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			b, _ := os.ReadFile(logFile.Name())
			t.Logf("containerd: %s", b[max(0, len(b)-4000):])
		}
		_ = logFile.Close()
	})
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(cfg.Address); err == nil {
			return cfg
		}
		if time.Now().After(deadline) {
			t.Fatal("containerd opens no socket")
		}
	}
}

func TestExternal(t *testing.T) {
	cfg := external(t)
	t.Cleanup(func() { nothingLeft(t, cfg) })
	runtimetest.Conformance(t, func(t *testing.T) runtime.Runtime {
		rt, err := Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		return rt
	})
}

func TestExternalAbsent(t *testing.T) {
	cfg := testConfig(t)
	cfg.Address = filepath.Join(cfg.Run, "nothing.sock")
	if _, err := Open(t.Context(), cfg); !errors.Is(err, runtime.ErrUnavailable) {
		t.Errorf("%v, want ErrUnavailable", err)
	}
}
