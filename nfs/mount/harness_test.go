package mount

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"appliance/node/needs"

	"appliance/nfs/server"
)

const serverEnv = "APPLIANCE_TEST_VOLUME_SERVER"

// TestMain makes the test binary serve as the FUSE client and as the volume server too.
func TestMain(m *testing.M) {
	if Applet() {
		return
	}
	if dir := os.Getenv(serverEnv); dir != "" {
		fmt.Fprintln(os.Stderr, runServer(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func runServer(dir string) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	s, err := server.Open(filepath.Join(dir, "volumes"), server.Options{Log: log, Lease: 5 * time.Second, Grace: 10 * time.Second, Reserve: 1 << 20, Checkpoint: 8 << 20})
	if err != nil {
		return err
	}
	if len(s.Volumes()) == 0 {
		if err := s.CreateVolume("notes", server.VolumeOptions{Mode: 0o777}); err != nil {
			return err
		}
	}
	sock := filepath.Join(dir, "sock")
	os.Remove(sock)
	l, err := net.Listen("unix", sock)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go s.Serve(context.Background(), c, "test")
	}
}

// volume is a server process with any number of mounts.
type volume struct {
	t   testing.TB
	dir string
	cmd *exec.Cmd
}

func newVolume(t testing.TB) *volume {
	t.Helper()
	needs.Root(t)
	needs.Device(t, "/dev/fuse")
	v := &volume{t: t, dir: t.TempDir()}
	v.start()
	t.Cleanup(func() { v.kill() })
	return v
}

func (v *volume) start() {
	v.t.Helper()
	v.cmd = exec.Command("/proc/self/exe")
	v.cmd.Env = append(os.Environ(), serverEnv+"="+v.dir)
	logf, err := os.OpenFile(filepath.Join(v.dir, "server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		v.t.Fatal(err)
	}
	defer logf.Close()
	v.cmd.Stdout, v.cmd.Stderr = logf, logf
	if err := v.cmd.Start(); err != nil {
		v.t.Fatal(err)
	}
}

func (v *volume) kill() {
	v.cmd.Process.Kill()
	v.cmd.Wait()
}

// mount mounts the volume as host number n and returns the directory.
func (v *volume) mount(n int) string {
	v.t.Helper()
	s := v.spec(n)
	if err := Mount(context.Background(), s); err != nil {
		b, _ := os.ReadFile(filepath.Join(v.dir, "server.log"))
		v.t.Fatalf("%v\n%s", err, b)
	}
	v.t.Cleanup(func() {
		if err := ForceUnmount(context.Background(), s.StateDir, s.Target); err != nil {
			v.t.Error(err)
		}
		if v.t.Failed() {
			for _, f := range []string{filepath.Join(v.dir, "server.log"), s.logFile()} {
				b, _ := os.ReadFile(f)
				v.t.Logf("%s:\n%s", f, b)
			}
		}
	})
	return s.Target
}

func (v *volume) spec(n int) Spec {
	return Spec{Volume: "notes", Target: filepath.Join(v.dir, fmt.Sprintf("host%d", n)), Endpoint: filepath.Join(v.dir, "sock"),
		ClientID: fmt.Sprintf("node-%d", n), StateDir: filepath.Join(v.dir, "state")}
}
