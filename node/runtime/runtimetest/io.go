package runtimetest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"appliance/node/runtime"
)

var ioTests = map[string]func(*testing.T, *suite){
	"Env":              testEnv,
	"LogsApart":        testLogsApart,
	"LogsFollow":       testLogsFollow,
	"LogsTail":         testLogsTail,
	"Exec":             testExec,
	"ExecStdin":        testExecStdin,
	"ExecNotRunning":   testExecNotRunning,
	"ExecCancelled":    testExecCancelled,
	"Mounts":           testMounts,
	"MountMissing":     testMountMissing,
	"HostnameAndHosts": testHostname,
	"User":             testUser,
	"Reattach":         testReattach,
}

func testEnv(t *testing.T, s *suite) {
	spec := s.spec(t, "env", "MINE", "BOTH")
	spec.Env = []string{"MINE=a b=c", "BOTH=spec"}
	_, out, _ := s.run(t, spec)
	if out != "MINE=a b=c\nBOTH=spec\n" {
		t.Errorf("got %q", out)
	}
	s.needs(t, s.info.Features.Processes, "image configuration")
	if _, out, _ := s.run(t, s.spec(t, "env", "FROM_IMAGE")); out != "FROM_IMAGE=yes\n" {
		t.Errorf("got %q", out)
	}
}

func testLogsApart(t *testing.T, s *suite) {
	spec := s.spec(t, "say", "to out", "to err")
	_, out, errw := s.run(t, spec)
	if out != "to out\n" || errw != "to err\n" {
		t.Errorf("stdout %q, stderr %q", out, errw)
	}
	for name, want := range map[string]string{"stdout": "to out\n", "stderr": "to err\n"} {
		b, err := os.ReadFile(filepath.Join(spec.LogDir, name))
		if err != nil || string(b) != want {
			t.Errorf("file %s: %q, %v", name, b, err)
		}
	}
}

func testLogsFollow(t *testing.T, s *suite) {
	id := s.start(t, s.spec(t, "lines", "20", "10"))
	var out bytes.Buffer
	if err := s.rt.Logs(ctx(t), id, runtime.LogOptions{Stdout: &out, Follow: true}); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 20 || lines[0] != "line 0" || lines[19] != "line 19" {
		t.Errorf("followed %d lines: %q", len(lines), out.String())
	}
	c, cancel := context.WithCancel(ctx(t))
	cancel()
	if err := s.rt.Logs(c, s.start(t, s.spec(t, "run")), runtime.LogOptions{Stdout: &out, Follow: true}); !errors.Is(err, context.Canceled) {
		t.Errorf("following with a cancelled context: %v", err)
	}
}

func testLogsTail(t *testing.T, s *suite) {
	id := s.start(t, s.spec(t, "lines", "9", "0"))
	s.wait(t, id)
	var out bytes.Buffer
	if err := s.rt.Logs(ctx(t), id, runtime.LogOptions{Stdout: &out, Tail: 2}); err != nil || out.String() != "line 7\nline 8\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
}

func testExec(t *testing.T, s *suite) {
	spec := s.spec(t, "run")
	spec.Env = []string{"HERE=container"}
	id := s.start(t, spec)
	code, out, errw := s.exec(t, id, "say", "x", "y")
	if code != 0 || out != "x\n" || errw != "y\n" {
		t.Errorf("code %d, stdout %q, stderr %q", code, out, errw)
	}
	if code, _, _ := s.exec(t, id, "exit", "6"); code != 6 {
		t.Errorf("exit code %d, want 6", code)
	}
	if _, out, _ := s.exec(t, id, "env", "HERE"); out != "HERE=container\n" {
		t.Errorf("environment: %q", out)
	}
	var buf bytes.Buffer
	if _, err := s.rt.Exec(ctx(t), id, runtime.ExecSpec{Args: []string{"/app", "env", "MORE"}, Env: []string{"MORE=1"}, Stdout: &buf}); err != nil || buf.String() != "MORE=1\n" {
		t.Errorf("%q, %v", buf.String(), err)
	}
}

func testExecStdin(t *testing.T, s *suite) {
	id := s.start(t, s.spec(t, "run"))
	var out bytes.Buffer
	in := strings.Repeat("0123456789abcdef\n", 10_000)
	code, err := s.rt.Exec(ctx(t), id, runtime.ExecSpec{Args: []string{"/app", "cat"}, Stdin: strings.NewReader(in), Stdout: &out})
	if err != nil || code != 0 || out.String() != in {
		t.Errorf("code %d, %v, %d of %d bytes came back", code, err, out.Len(), len(in))
	}
}

func testExecNotRunning(t *testing.T, s *suite) {
	spec := s.spec(t, "exit", "0")
	s.run(t, spec)
	if _, err := s.rt.Exec(ctx(t), spec.ID, runtime.ExecSpec{Args: []string{"/app"}}); !errors.Is(err, runtime.ErrNotRunning) {
		t.Errorf("%v, want ErrNotRunning", err)
	}
}

func testExecCancelled(t *testing.T, s *suite) {
	id := s.start(t, s.spec(t, "run"))
	c, cancel := context.WithCancel(ctx(t))
	out := &signalWriter{seen: make(chan struct{})}
	done := make(chan error, 1)
	go func() {
		_, err := s.rt.Exec(c, id, runtime.ExecSpec{Args: []string{"/app", "stubborn"}, Stdout: out})
		done <- err
	}()
	<-out.seen
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want the context's error", err)
	}
	if st, err := s.rt.Inspect(ctx(t), id); err != nil || st.State != runtime.StateRunning {
		t.Errorf("the container: %v, %v", st.State, err)
	}
}

type signalWriter struct {
	once sync.Once
	seen chan struct{}
}

func (w *signalWriter) Write(p []byte) (int, error) {
	w.once.Do(func() { close(w.seen) })
	return len(p), nil
}

func testMounts(t *testing.T, s *suite) {
	s.needs(t, s.info.Features.Processes, "mounts")
	dir := Dir(t)
	spec := s.spec(t, "write", "/data/new", "from inside")
	spec.Mounts = []runtime.Mount{{Source: dir, Destination: "/data"}}
	if exit, _, errw := s.run(t, spec); exit.Code != 0 {
		t.Fatal(errw)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "new")); err != nil || string(b) != "from inside" {
		t.Errorf("%q, %v", b, err)
	}
	ro := s.spec(t, "write", "/data/new", "again")
	ro.Mounts = []runtime.Mount{{Source: dir, Destination: "/data", ReadOnly: true}}
	if exit, _, errw := s.run(t, ro); exit.Code == 0 || !strings.Contains(errw, "read-only") {
		t.Errorf("wrote to a read-only mount: %v %q", exit, errw)
	}
}

func testMountMissing(t *testing.T, s *suite) {
	s.needs(t, s.info.Features.Processes, "mounts")
	spec := s.spec(t, "exit", "0")
	spec.Mounts = []runtime.Mount{{Source: filepath.Join(Dir(t), "nothing"), Destination: "/data"}}
	if err := s.rt.Create(ctx(t), spec); !errors.Is(err, runtime.ErrInvalid) {
		t.Errorf("%v, want ErrInvalid", err)
	}
}

func testHostname(t *testing.T, s *suite) {
	s.needs(t, s.info.Features.Processes, "host names")
	spec := s.spec(t, "run")
	spec.Hostname, spec.Network = "notejam-1", runtime.NetworkNone
	spec.ExtraHosts = []runtime.HostEntry{{IP: "10.9.8.7", Names: []string{"db", "db.local"}}}
	spec.Nameservers, spec.Search = []string{"10.1.1.1"}, []string{"service.consul"}
	id := s.start(t, spec)
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"hostname"}, "notejam-1"},
		{[]string{"read", "/etc/hosts"}, "10.9.8.7\tdb"},
		{[]string{"read", "/etc/resolv.conf"}, "nameserver 10.1.1.1"},
		{[]string{"read", "/etc/resolv.conf"}, "search service.consul"},
	} {
		if _, out, errw := s.exec(t, id, tc.args...); !strings.Contains(out, tc.want) {
			t.Errorf("%v: %q %q, want %q", tc.args, out, errw, tc.want)
		}
	}
}

func testUser(t *testing.T, s *suite) {
	s.needs(t, s.info.Features.Processes, "users")
	for user, want := range map[string]string{"": "0:0\n", "web": "1234:1234\n", "7:8": "7:8\n"} {
		spec := s.spec(t, "id")
		spec.User = user
		if _, out, errw := s.run(t, spec); out != want {
			t.Errorf("user %q: %q %q", user, out, errw)
		}
	}
}

// testReattach restarts the driver over running containers.
func testReattach(t *testing.T, s *suite) {
	running, ending, fresh := s.spec(t, "run"), s.spec(t, "lines", "25", "20"), s.spec(t, "exit", "2")
	running.Labels["reattach"] = "yes"
	s.start(t, running)
	s.start(t, ending)
	s.create(t, fresh)
	s.ready(t, ending.ID, "line 1")
	before, err := s.rt.Inspect(ctx(t), running.ID)
	if err != nil {
		t.Fatal(err)
	}
	gone, err := s.rt.Inspect(ctx(t), ending.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.rt.Close(); err != nil {
		t.Fatal("close:", err)
	}
	if s.info.Features.KeepsExits && gone.Pid > 0 {
		Eventually(t, "the process ends while the driver is away", func() bool { return syscall.Kill(gone.Pid, 0) != nil })
	}
	s.rt = s.open(t)
	after, err := s.rt.List(ctx(t), map[string]string{"reattach": "yes"})
	if err != nil || len(after) != 1 || after[0].State != runtime.StateRunning || after[0].Pid != before.Pid {
		t.Fatalf("after the restart: %+v, %v; before: %+v", after, err, before)
	}
	if exit := s.wait(t, ending.ID); !exit.Known || exit.Code != 0 {
		t.Errorf("the exit while away: %+v", exit)
	}
	if out, _ := s.logs(t, ending.ID); strings.Count(out, "line ") != 25 {
		t.Errorf("output while away is missing or doubled: %q", out)
	}
	if code, _, _ := s.exec(t, running.ID, "exit", "8"); code != 8 {
		t.Errorf("exec after the restart: %d", code)
	}
	if err := s.rt.Start(ctx(t), fresh.ID); err != nil {
		t.Errorf("start of what the last driver created: %v", err)
	}
	if exit := s.wait(t, fresh.ID); exit.Code != 2 {
		t.Errorf("%v, want exit code 2", exit)
	}
	if err := s.rt.Stop(ctx(t), running.ID, -1); err != nil {
		t.Fatal(err)
	}
	if exit := s.wait(t, running.ID); exit.Code != 0 {
		t.Errorf("stopped after the restart: %v", exit)
	}
}
