// Package runtimetest is the conformance suite of runtime.Runtime: what every
// driver must do, as tests against real containers.
package runtimetest

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"appliance/node/needs"

	"appliance/node/runtime"
)

func sortedNames[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// Conformance runs the suite. open is called again after Close and must find
// the same containers then; it must have an empty engine at first.
func Conformance(t *testing.T, open func(t *testing.T) runtime.Runtime) {
	s := &suite{open: open, rt: open(t)}
	t.Cleanup(func() {
		if err := s.rt.Close(); err != nil {
			t.Error("close:", err)
		}
	})
	info, err := s.rt.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", info)
	s.info = info
	s.load(t)
	for _, group := range []map[string]func(*testing.T, *suite){lifeTests, ioTests, secretTests, kernelTests, networkTests, engineTests} {
		for _, name := range sortedNames(group) {
			t.Run(name, func(t *testing.T) { group[name](t, s) })
		}
	}
}

type suite struct {
	open func(t *testing.T) runtime.Runtime
	rt   runtime.Runtime
	info runtime.Info
	mu   sync.Mutex
	n    int
}

// load imports the image, or for an engine without real processes names it.
func (s *suite) load(t *testing.T) {
	t.Helper()
	archive := []byte(ImageRef + "\n")
	if s.info.Features.Processes {
		archive = DockerArchive(t, Image(t), ImageRef)
	}
	imgs, err := s.rt.Import(t.Context(), bytes.NewReader(archive))
	if err != nil {
		t.Fatal("import:", err)
	}
	if len(imgs) != 1 || imgs[0].Ref != ImageRef || imgs[0].Digest == "" {
		t.Fatalf("import returned %+v", imgs)
	}
}

// needs is for what an engine may lack: the fake one has no processes at all,
// of a real one the machine lacks something.
func (s *suite) needs(t *testing.T, has bool, what string) {
	t.Helper()
	switch {
	case has:
	case s.info.Features.Processes:
		needs.Missing(t, "%s: no %s on this machine", s.rt.Name(), what)
	default:
		t.Skipf("%s has no processes, so no %s", s.rt.Name(), what)
	}
}

// spec is a container that runs a command of the suite's program.
func (s *suite) spec(t *testing.T, args ...string) runtime.ContainerSpec {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n++
	id := fmt.Sprintf("rtt-%d-%s", s.n, strings.ToLower(strings.NewReplacer("/", "-", "_", "-", "#", "-").Replace(t.Name()[max(0, len(t.Name())-24):])))
	id = strings.ReplaceAll(strings.Trim(id, "-."), "--", "-")
	spec := runtime.ContainerSpec{ID: id, Image: ImageRef, Args: args, LogDir: Dir(t), Labels: map[string]string{"suite": "conformance"}}
	t.Cleanup(func() {
		if err := s.rt.Remove(context.Background(), id); err != nil {
			t.Errorf("remove %s: %v", id, err)
		}
	})
	return spec
}

func (s *suite) create(t *testing.T, spec runtime.ContainerSpec) {
	t.Helper()
	if err := s.rt.Create(ctx(t), spec); err != nil {
		t.Fatal("create:", err)
	}
}

func (s *suite) start(t *testing.T, spec runtime.ContainerSpec) string {
	t.Helper()
	s.create(t, spec)
	if err := s.rt.Start(ctx(t), spec.ID); err != nil {
		t.Fatal("start:", err)
	}
	return spec.ID
}

func (s *suite) wait(t *testing.T, id string) runtime.Exit {
	t.Helper()
	exit, err := s.rt.Wait(ctx(t), id)
	if err != nil {
		t.Fatal("wait:", err)
	}
	return exit
}

// run is a container's whole life; it returns the exit and the output.
func (s *suite) run(t *testing.T, spec runtime.ContainerSpec) (exit runtime.Exit, stdout, stderr string) {
	t.Helper()
	id := s.start(t, spec)
	exit = s.wait(t, id)
	stdout, stderr = s.logs(t, id)
	return exit, stdout, stderr
}

func (s *suite) logs(t *testing.T, id string) (stdout, stderr string) {
	t.Helper()
	var out, errw bytes.Buffer
	if err := s.rt.Logs(ctx(t), id, runtime.LogOptions{Stdout: &out, Stderr: &errw}); err != nil {
		t.Fatal("logs:", err)
	}
	return out.String(), errw.String()
}

// ready waits until a container has printed a line.
func (s *suite) ready(t *testing.T, id, line string) {
	t.Helper()
	Eventually(t, id+" prints "+line, func() bool {
		out, _ := s.logs(t, id)
		return strings.Contains(out, line+"\n")
	})
}

func (s *suite) exec(t *testing.T, id string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errw bytes.Buffer
	code, err := s.rt.Exec(ctx(t), id, runtime.ExecSpec{Args: append([]string{"/app"}, args...), Stdout: &out, Stderr: &errw})
	if err != nil {
		t.Fatal("exec:", err)
	}
	return code, out.String(), errw.String()
}

// ctx bounds one call: a hang is a failure of that call, not of the package.
func ctx(t testing.TB) context.Context {
	c, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	return c
}

// Eventually polls until ok.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not reached in 20 s: ", what)
		}
	}
}

const (
	sigUSR1 = syscall.SIGUSR1
	sigUSR2 = syscall.SIGUSR2
)
