package containerd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"appliance/node/runtime"
	"appliance/node/runtime/runtimetest"
)

// agentEnv carries the configuration to the process that TestCrash kills.
const agentEnv = "RUNTIMETEST_AGENT"

func crashSpec(id, logs string, args ...string) runtime.ContainerSpec {
	return runtime.ContainerSpec{ID: id, Image: runtimetest.ImageRef, Args: args, LogDir: logs, Network: runtime.NetworkBridge,
		Resources: runtime.Resources{MemoryBytes: 64 << 20}}
}

// victim starts containers and waits for its end.
func victim(t *testing.T, conf string) {
	var cfg Config
	if err := json.Unmarshal([]byte(conf), &cfg); err != nil {
		t.Fatal(err)
	}
	rt, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rt.Import(t.Context(), bytes.NewReader(runtimetest.DockerArchive(t, runtimetest.Image(t), runtimetest.ImageRef))); err != nil {
		t.Fatal(err)
	}
	for id, args := range map[string][]string{"ending": {"later", "700", "42"}, "hungry": {"later", "0", "0"}, "running": {"run"}, "orphan": {"run"}} {
		spec := crashSpec(id, cfg.Root+"/logs/"+id, args...)
		if id == "hungry" { // dies of hunger as soon as it starts
			spec.Args = []string{"hog", "200"}
		}
		if err := rt.Create(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		if err := rt.Start(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	os.Stdout.WriteString("\nAGENT READY\n")
	select {}
}

func startAgent(t *testing.T, cfg Config) *exec.Cmd {
	t.Helper()
	cfg.Log = nil
	conf, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	agent := exec.Command("/proc/self/exe", "-test.run", "^TestCrash$", "-test.v")
	agent.Env = append(os.Environ(), agentEnv+"="+string(conf))
	out, err := agent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	sc := bufio.NewScanner(out)
	for sc.Scan() {
		if sc.Text() == "AGENT READY" {
			return agent
		}
		t.Log("agent:", sc.Text())
	}
	t.Fatal("the agent did not come up")
	return nil
}

// TestCrash kills an agent with SIGKILL, lets a container end meanwhile, and
// starts another agent over what is left.
func TestCrash(t *testing.T) {
	if conf := os.Getenv(agentEnv); conf != "" {
		victim(t, conf)
		return
	}
	cfg := testConfig(t)
	agent := startAgent(t, cfg)
	if err := agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = agent.Wait()
	runtimetest.Eventually(t, "two exits are on disk", func() bool {
		_, a := readExit(cfg.exits(), "ending")
		_, b := readExit(cfg.exits(), "hungry")
		return a && b
	})

	t.Cleanup(func() { nothingLeft(t, cfg) })
	rt, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, id := range []string{"ending", "hungry", "running", "orphan"} {
			if err := rt.Remove(context.Background(), id); err != nil {
				t.Error(err)
			}
		}
		_ = rt.Close()
		if rt, err := Open(context.Background(), cfg); err != nil { // takes the killed shim's socket away
			t.Error(err)
		} else {
			_ = rt.Close()
		}
	})
	if exit, err := rt.Wait(t.Context(), "ending"); err != nil || !exit.Known || exit.Code != 42 || exit.OOM {
		t.Errorf("exit while nobody looked: %+v, %v", exit, err)
	}
	if exit, err := rt.Wait(t.Context(), "hungry"); err != nil || !exit.Known || !exit.OOM {
		t.Errorf("out of memory while nobody looked: %+v, %v", exit, err)
	}
	st, err := rt.Inspect(t.Context(), "running")
	if err != nil || st.State != runtime.StateRunning || st.IP == "" {
		t.Fatalf("%+v, %v", st, err)
	}
	if err := rt.Create(t.Context(), crashSpec("running", cfg.Root+"/logs/running", "run")); err != nil {
		t.Error("create again after a crash:", err)
	}
	if err := rt.Stop(t.Context(), "running", -1); err != nil {
		t.Error(err)
	}
	if exit, err := rt.Wait(t.Context(), "running"); err != nil || exit.Code != 0 {
		t.Errorf("%+v, %v", exit, err)
	}

	// A shim that dies takes its container along; the exit is seen.
	for _, p := range shims(t) {
		b, _ := os.ReadFile(p)
		if strings.Contains(string(b), "\x00-id\x00orphan\x00") {
			var pid int
			for _, c := range strings.Split(p, "/")[2] {
				pid = pid*10 + int(c-'0')
			}
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Error(err)
			}
		}
	}
	if exit, err := rt.Wait(t.Context(), "orphan"); err != nil || exit.Known && exit.Code == 0 {
		t.Errorf("after its shim's death: %+v, %v", exit, err)
	}
}

// TestSweep ends a node whose agent is dead, without an engine.
func TestSweep(t *testing.T) {
	cfg := testConfig(t)
	agent := startAgent(t, cfg)
	if err := agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = agent.Wait()
	if len(shims(t)) == 0 {
		t.Fatal("no shim survived its agent")
	}
	if err := Sweep(cfg); err != nil {
		t.Fatal(err)
	}
	if left := shims(t); len(left) > 0 {
		t.Error("shims left:", left)
	}
	if left := cgroupDirs(cfg.cgroup()); len(left) > 0 {
		t.Error("cgroups left:", left)
	}
	if b, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(b), cfg.Run+"/") {
		t.Error("mounts are left")
	}
	if err := os.RemoveAll(cfg.Run); err != nil {
		t.Error(err)
	}
	rt, err := Open(t.Context(), cfg) // the data directory alone is a good start
	if err != nil {
		t.Fatal(err)
	}
	defer rt.Close()
	list, err := rt.List(t.Context(), nil)
	if err != nil || len(list) != 4 {
		t.Fatalf("%+v, %v", list, err)
	}
	for _, st := range list {
		if err := rt.Remove(t.Context(), st.ID); err != nil {
			t.Error(err)
		}
	}
}

// TestReboot takes what a reboot takes, though the kernel is the same, as when
// the machine is a container: processes, mounts and the run directory.
func TestReboot(t *testing.T) {
	cfg := testConfig(t)
	agent := startAgent(t, cfg)
	if err := agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = agent.Wait()
	if err := Sweep(cfg); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(cfg.Run); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nothingLeft(t, cfg) })
	rt, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rt.Close() })
	exit, err := rt.Wait(t.Context(), "running")
	if err != nil || exit.Known {
		t.Errorf("a container of before the reboot: %+v, %v", exit, err)
	}
	for _, id := range []string{"ending", "hungry", "running", "orphan"} {
		if err := rt.Remove(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
}
