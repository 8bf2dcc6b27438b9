package docker

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"appliance/node/needs"

	"go.uber.org/goleak"

	"appliance/node/runtime"
	"appliance/node/runtime/runtimetest"
)

func TestMain(m *testing.M) { os.Exit(runtimetest.Isolate(m)) }

// engine starts a Docker engine of its own, with private state.
func engine(t *testing.T) Config {
	runtimetest.NeedsRoot(t)
	dockerd := needs.Tool(t, "dockerd", "docker.io")
	run, err := os.MkdirTemp("/run", "d")
	if err != nil {
		t.Fatal(err)
	}
	host := "unix://" + filepath.Join(run, "docker.sock")
	cgroup := "/appliance/" + runtimetest.CgroupPrefix + filepath.Base(run)
	cmd := exec.Command(dockerd, "--host", host, "--data-root", runtimetest.Dir(t), "--exec-root", filepath.Join(run, "x"),
		"--pidfile", filepath.Join(run, "pid"), "--cgroup-parent", cgroup, "--live-restore")
	logFile, err := os.Create(filepath.Join(run, "log"))
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
			t.Logf("dockerd: %s", b[max(0, len(b)-4000):])
		}
		_ = logFile.Close()
	})
	cfg := Config{Host: host, Node: "rtt"}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if _, err = Probe(t.Context(), cfg); err == nil {
			return cfg
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func TestDocker(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	cfg := engine(t)
	runtimetest.Conformance(t, func(t *testing.T) runtime.Runtime {
		rt, err := Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		return rt
	})
}

func TestNoEngine(t *testing.T) {
	cfg := Config{Host: "unix://" + filepath.Join(t.TempDir(), "nothing.sock")}
	if _, err := Open(t.Context(), cfg); !errors.Is(err, runtime.ErrUnavailable) {
		t.Errorf("%v, want ErrUnavailable", err)
	}
	if _, err := Probe(t.Context(), cfg); err == nil {
		t.Error("an absent engine answers")
	}
}

func frame(stream byte, s string) []byte {
	b := make([]byte, frameHeader, frameHeader+len(s))
	b[0] = stream
	binary.BigEndian.PutUint32(b[4:], uint32(len(s)))
	return append(b, s...)
}

func FuzzFrames(f *testing.F) {
	f.Add(append(frame(streamOut, "2026-11-22T17:00:00.5Z hello\n"), frame(streamErr, "no time\n")...))
	f.Add(frame(streamOut, "")[:5])
	f.Add([]byte{1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		var again bytes.Buffer
		err := eachFrame(bytes.NewReader(b), func(stream byte, data []byte) error {
			again.Write(frame(stream, string(data)))
			if at, rest := splitTime(data); at.IsZero() && !bytes.Equal(rest, data) || len(rest) > len(data) {
				t.Errorf("split %q to %v and %q", data, at, rest)
			}
			return nil
		})
		if err != nil {
			return
		}
		for i := range len(b) { // the three bytes of zero carry nothing
			if i >= again.Len() {
				t.Fatalf("%d of %d bytes read", again.Len(), len(b))
			}
		}
	})
}
