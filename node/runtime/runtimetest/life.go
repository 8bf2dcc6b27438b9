package runtimetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"appliance/node/runtime"
)

var lifeTests = map[string]func(*testing.T, *suite){
	"ExitCode":         testExitCode,
	"ImageCommand":     testImageCommand,
	"CreateTwice":      testCreateTwice,
	"CreateConcurrent": testCreateConcurrent,
	"ImageMissing":     testImageMissing,
	"CommandMissing":   testCommandMissing,
	"InvalidSpec":      testInvalidSpec,
	"Absent":           testAbsent,
	"StopGraceful":     testStopGraceful,
	"StopStubborn":     testStopStubborn,
	"Signal":           testSignal,
	"WaitBeforeStart":  testWaitBeforeStart,
	"WaitCancelled":    testWaitCancelled,
	"StartTwice":       testStartTwice,
	"RemoveRunning":    testRemoveRunning,
	"List":             testList,
	"Events":           testEvents,
}

func testExitCode(t *testing.T, s *suite) {
	for _, code := range []int{0, 42} {
		exit, _, _ := s.run(t, s.spec(t, "exit", fmt.Sprint(code)))
		if !exit.Known || exit.Code != code || exit.OOM || exit.At.IsZero() {
			t.Errorf("exit %d seen as %+v", code, exit)
		}
	}
}

func testImageCommand(t *testing.T, s *suite) {
	s.needs(t, s.info.Features.Processes, "image configuration")
	spec := s.spec(t)
	if exit, _, _ := s.run(t, spec); exit.Code != 3 {
		t.Errorf("the image's command exits 3, got %v", exit)
	}
	over := s.spec(t, "7")
	over.Entrypoint = []string{"/app", "exit"}
	if exit, _, _ := s.run(t, over); exit.Code != 7 {
		t.Errorf("the spec's entrypoint exits 7, got %v", exit)
	}
}

func testCreateTwice(t *testing.T, s *suite) {
	spec := s.spec(t, "exit", "0")
	s.create(t, spec)
	s.create(t, spec)
	other := spec
	other.Args = []string{"exit", "1"}
	if err := s.rt.Create(ctx(t), other); !errors.Is(err, runtime.ErrConflict) {
		t.Errorf("another spec under the same id: %v, want ErrConflict", err)
	}
	if st, err := s.rt.Inspect(ctx(t), spec.ID); err != nil || st.State != runtime.StateCreated {
		t.Errorf("state %q, %v; want created", st.State, err)
	}
}

func testCreateConcurrent(t *testing.T, s *suite) {
	var g errgroup.Group
	for i := range 10 {
		spec := s.spec(t, "exit", fmt.Sprint(i))
		g.Go(func() error {
			if err := s.rt.Create(ctx(t), spec); err != nil {
				return err
			}
			if err := s.rt.Start(ctx(t), spec.ID); err != nil {
				return err
			}
			exit, err := s.rt.Wait(ctx(t), spec.ID)
			if err == nil && exit.Code != i {
				err = fmt.Errorf("container %d: %v", i, exit)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

func testImageMissing(t *testing.T, s *suite) {
	spec := s.spec(t, "exit", "0")
	spec.Image = "conformance.test/nothing:here"
	err := s.rt.Create(ctx(t), spec)
	if !errors.Is(err, runtime.ErrImageNotFound) {
		t.Fatalf("%v, want ErrImageNotFound", err)
	}
	if _, err := s.rt.Inspect(ctx(t), spec.ID); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("a failed create left a container: %v", err)
	}
}

func testCommandMissing(t *testing.T, s *suite) {
	s.needs(t, s.info.Features.Processes, "processes")
	spec := s.spec(t)
	spec.Entrypoint = []string{"/no/such/program"}
	s.create(t, spec)
	if err := s.rt.Start(ctx(t), spec.ID); !errors.Is(err, runtime.ErrCommand) {
		t.Errorf("%v, want ErrCommand", err)
	}
}

func testInvalidSpec(t *testing.T, s *suite) {
	for name, change := range map[string]func(*runtime.ContainerSpec){
		"id":     func(c *runtime.ContainerSpec) { c.ID = "../x" },
		"image":  func(c *runtime.ContainerSpec) { c.Image = "UPPER" },
		"env":    func(c *runtime.ContainerSpec) { c.Env = []string{"novalue"} },
		"mount":  func(c *runtime.ContainerSpec) { c.Mounts = []runtime.Mount{{Source: "rel", Destination: "/x"}} },
		"ports":  func(c *runtime.ContainerSpec) { c.Ports = []runtime.PortMapping{{HostPort: 80, ContainerPort: 80}} },
		"memory": func(c *runtime.ContainerSpec) { c.Resources.MemoryBytes = 1 },
	} {
		spec := s.spec(t, "exit", "0")
		change(&spec)
		if err := s.rt.Create(ctx(t), spec); !errors.Is(err, runtime.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
}

func testAbsent(t *testing.T, s *suite) {
	c := ctx(t)
	_, inspect := s.rt.Inspect(c, "nobody")
	_, wait := s.rt.Wait(c, "nobody")
	_, stats := s.rt.Stats(c, "nobody")
	_, exec := s.rt.Exec(c, "nobody", runtime.ExecSpec{Args: []string{"/app"}})
	for name, err := range map[string]error{"Inspect": inspect, "Wait": wait, "Stats": stats, "Exec": exec,
		"Start": s.rt.Start(c, "nobody"), "Stop": s.rt.Stop(c, "nobody", 0), "Signal": s.rt.Signal(c, "nobody", sigUSR1),
		"Logs": s.rt.Logs(c, "nobody", runtime.LogOptions{}), "Update": s.rt.Update(c, "nobody", runtime.Resources{})} {
		if !errors.Is(err, runtime.ErrNotFound) {
			t.Errorf("%s of nobody: %v, want ErrNotFound", name, err)
		}
	}
	if err := s.rt.Remove(c, "nobody"); err != nil {
		t.Errorf("Remove of nobody: %v, want nil", err)
	}
}

func testStopGraceful(t *testing.T, s *suite) {
	id := s.start(t, s.spec(t, "run"))
	s.ready(t, id, "ready")
	if err := s.rt.Stop(ctx(t), id, 20*time.Second); err != nil {
		t.Fatal(err)
	}
	if exit := s.wait(t, id); exit.Code != 0 {
		t.Errorf("a polite program was stopped with %v", exit)
	}
	if out, _ := s.logs(t, id); !strings.Contains(out, "bye") {
		t.Errorf("last words are missing in %q", out)
	}
	if err := s.rt.Stop(ctx(t), id, 0); err != nil {
		t.Errorf("stopping a stopped container: %v", err)
	}
}

func testStopStubborn(t *testing.T, s *suite) {
	id := s.start(t, s.spec(t, "stubborn"))
	s.ready(t, id, "ready")
	if err := s.rt.Stop(ctx(t), id, 200*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if exit := s.wait(t, id); exit.Code != 137 || exit.Signal() != 9 || exit.OOM {
		t.Errorf("a killed program ended with %v", exit)
	}
	if out, _ := s.logs(t, id); !strings.Contains(out, "ignored 15") {
		t.Errorf("it was not asked first: %q", out)
	}
}

func testSignal(t *testing.T, s *suite) {
	id := s.start(t, s.spec(t, "signals"))
	s.ready(t, id, "ready")
	if err := s.rt.Signal(ctx(t), id, sigUSR1); err != nil {
		t.Fatal(err)
	}
	s.ready(t, id, "got 10")
	if err := s.rt.Signal(ctx(t), id, sigUSR2); err != nil {
		t.Fatal(err)
	}
	if exit := s.wait(t, id); exit.Code != 5 {
		t.Errorf("%v, want exit code 5", exit)
	}
	if err := s.rt.Signal(ctx(t), id, sigUSR1); !errors.Is(err, runtime.ErrNotRunning) {
		t.Errorf("signal after the exit: %v, want ErrNotRunning", err)
	}
}

func testWaitBeforeStart(t *testing.T, s *suite) {
	spec := s.spec(t, "exit", "9")
	s.create(t, spec)
	got := make(chan runtime.Exit, 1)
	go func() {
		exit, err := s.rt.Wait(ctx(t), spec.ID)
		if err != nil {
			t.Error(err)
		}
		got <- exit
	}()
	if err := s.rt.Start(ctx(t), spec.ID); err != nil {
		t.Fatal(err)
	}
	if exit := <-got; exit.Code != 9 {
		t.Errorf("%v, want exit code 9", exit)
	}
}

func testWaitCancelled(t *testing.T, s *suite) {
	id := s.start(t, s.spec(t, "run"))
	c, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.rt.Wait(c, id); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want the context's error", err)
	}
	if st, err := s.rt.Inspect(ctx(t), id); err != nil || st.State != runtime.StateRunning {
		t.Errorf("%v, %v; want it to go on", st.State, err)
	}
}

func testStartTwice(t *testing.T, s *suite) {
	id := s.start(t, s.spec(t, "run"))
	if err := s.rt.Start(ctx(t), id); err != nil {
		t.Errorf("starting a running container: %v", err)
	}
	if err := s.rt.Stop(ctx(t), id, 0); err != nil {
		t.Fatal(err)
	}
	s.wait(t, id)
	if err := s.rt.Start(ctx(t), id); !errors.Is(err, runtime.ErrConflict) {
		t.Errorf("starting it again: %v, want ErrConflict: tasks are replaced", err)
	}
}

func testRemoveRunning(t *testing.T, s *suite) {
	id := s.start(t, s.spec(t, "stubborn"))
	if err := s.rt.Remove(ctx(t), id); err != nil {
		t.Fatal(err)
	}
	if _, err := s.rt.Inspect(ctx(t), id); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("%v, want ErrNotFound", err)
	}
}

func testList(t *testing.T, s *suite) {
	a, b := s.spec(t, "run"), s.spec(t, "exit", "4")
	a.Labels = map[string]string{"app": "web", "test": "list"}
	b.Labels = map[string]string{"app": "db", "test": "list"}
	s.start(t, a)
	s.wait(t, s.start(t, b))
	list := func(labels map[string]string) string {
		got, err := s.rt.List(ctx(t), labels)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, st := range got {
			out = append(out, st.ID+" "+string(st.State)+" "+st.Labels["app"])
			if st.ID == b.ID && st.Exit.Code != 4 || st.LogDir == "" || st.Created.IsZero() || st.Started.IsZero() {
				t.Errorf("incomplete: %+v", st)
			}
		}
		return strings.Join(out, ", ")
	}
	for _, tc := range []struct {
		name   string
		labels map[string]string
		want   string
	}{
		{"both", map[string]string{"test": "list"}, a.ID + " running web, " + b.ID + " exited db"},
		{"one", map[string]string{"test": "list", "app": "db"}, b.ID + " exited db"},
		{"none", map[string]string{"test": "list", "app": "none"}, ""},
	} {
		if got := list(tc.labels); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
}

func testEvents(t *testing.T, s *suite) {
	c, cancel := context.WithCancel(ctx(t))
	events, err := s.rt.Events(c)
	if err != nil {
		t.Fatal(err)
	}
	id := s.start(t, s.spec(t, "exit", "0"))
	var got []string
	for ev := range events {
		if ev.ID != id {
			continue
		}
		got = append(got, string(ev.Type))
		if ev.Type == runtime.EventExit {
			break
		}
	}
	if strings.Join(got, " ") != "start exit" {
		t.Errorf("events %v", got)
	}
	cancel()
	for range events { // closed soon after
	}
}
