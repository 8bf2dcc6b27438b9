package agent

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"appliance/node/model"
	"appliance/node/runtime"
	"appliance/node/runtime/fake"
	"appliance/raft/command"
	"appliance/raft/state"
)

func TestMain(m *testing.M) {
	Applet()
	os.Exit(m.Run())
}

// log is a one-node log: commands are applied at once.
type log struct {
	mu    sync.Mutex
	store *state.Store
	index uint64
	down  atomic.Bool
}

func (l *log) Propose(ctx context.Context, c command.Command) (command.Result, error) {
	if l.down.Load() {
		return command.Result{}, errors.New("no leader")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	raw, err := command.Encode(c)
	if err != nil {
		return command.Result{}, err
	}
	l.index++
	tx := l.store.Begin()
	res, err := command.Apply(tx, l.index, raw)
	if err != nil {
		tx.Abort()
		return res, err
	}
	tx.Commit(l.index)
	return res, nil
}

type bench struct {
	t      *testing.T
	log    *log
	engine *fake.Engine
	dir    string
	fresh  atomic.Bool
	sync   func(context.Context) error
	alone  time.Duration
	stop   func()
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, log: &log{store: state.New()}, engine: fake.New(), dir: t.TempDir()}
	b.fresh.Store(true)
	b.do(&command.InitCluster{Cluster: model.Cluster{ID: "c"}, Environments: []model.Environment{{Name: "test"}}})
	b.do(&command.RegisterNode{Node: model.Node{ID: "n1", Name: "ms1", Role: model.RoleAgent, Addr: "127.0.0.1", Status: model.NodeReady,
		Capacity: model.Resources{CPUs: 4, Memory: 4096}, PortRange: [2]int{31000, 32000}}})
	t.Cleanup(b.engine.Close)
	return b
}

func (b *bench) do(c command.Command) command.Result {
	b.t.Helper()
	res, err := command.Do(context.Background(), b.log, c)
	if err != nil {
		b.t.Fatalf("%T: %v", c, err)
	}
	return res
}

func (b *bench) start() {
	b.t.Helper()
	a, err := Open(Config{Node: "n1", Name: "ms1", Addr: "127.0.0.1", Dir: b.dir, Store: b.log.store, Proposer: b.log,
		Runtime: b.engine.Open(), Fresh: b.fresh.Load, Sync: b.sync, Alone: b.alone, Registry: "127.0.0.1:5000", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = a.Run(ctx); a.Close() }()
	var once sync.Once
	b.stop = func() { once.Do(func() { cancel(); <-done }) }
	b.t.Cleanup(b.stop)
}

func (b *bench) app(spec model.AppSpec) {
	spec.ID = "/test/web"
	b.do(&command.CreateRelease{Release: model.Release{App: spec.ID, Spec: spec}, Instances: 1, Deployment: model.Deployment{ID: "d1"}})
}

func (b *bench) place(id string, ports ...int) {
	b.do(&command.CreateTasks{Tasks: []model.Task{{ID: id, App: "/test/web", Release: 1, Env: "test"}}})
	b.do(&command.Place{Placements: []model.Placement{{Task: id, Node: "n1", Ports: ports}}})
}

func (b *bench) task(id string) *model.Task { return state.Tasks.Get(b.log.store.Snapshot(), id) }

func (b *bench) until(what string, ok func() bool) {
	b.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			raw, _ := json.MarshalIndent(b.task("web.1"), "", " ")
			b.t.Fatalf("never: %s\n%s", what, raw)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (b *bench) state(id string, want model.TaskState) {
	b.t.Helper()
	b.until(id+" "+string(want), func() bool { t := b.task(id); return t != nil && t.Status.State == want })
}

func TestTaskRunsUntilItIsStopped(t *testing.T) {
	b := newBench(t)
	b.start()
	b.app(model.AppSpec{Image: "web:1"})
	b.place("web.1", 31000)
	b.state("web.1", model.TaskRunning)
	b.do(&command.StopTasks{Tasks: []string{"web.1"}, Why: "scaled down"})
	b.state("web.1", model.TaskKilled)
	if got := b.task("web.1").Status.Message; got != "scaled down" {
		t.Errorf("message %q", got)
	}
	b.until("container removed", func() bool { return len(b.engine.IDs()) == 0 })
}

func TestExitCodeDecidesTheFinalState(t *testing.T) {
	for name, c := range map[string]struct {
		code int
		want model.TaskState
	}{"zero is finished": {0, model.TaskFinished}, "other is failed": {3, model.TaskFailed}} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.start()
			b.engine.Program("127.0.0.1:5000/web:1", fake.ExitAfter(time.Millisecond, c.code))
			b.app(model.AppSpec{Image: "web:1"})
			b.place("web.1")
			b.state("web.1", c.want)
			if got := b.task("web.1").Status.ExitCode; got == nil || *got != c.code {
				t.Errorf("exit code %v", got)
			}
		})
	}
}

func TestMissingImageFailsAtOnceAndSaysWhy(t *testing.T) {
	b := newBench(t)
	b.engine.Remote("other:1")
	b.start()
	b.app(model.AppSpec{Image: "web:1"})
	b.place("web.1")
	b.state("web.1", model.TaskFailed)
	if b.task("web.1").Status.Message == "" {
		t.Error("no message")
	}
}

func TestRestartedAgentFindsItsContainersAndTheirExits(t *testing.T) {
	b := newBench(t)
	b.start()
	b.app(model.AppSpec{Image: "web:1"})
	b.place("web.1")
	b.place("web.2")
	b.state("web.1", model.TaskRunning)
	b.state("web.2", model.TaskRunning)
	b.stop()
	if n := len(b.engine.IDs()); n != 2 {
		t.Fatalf("%d containers after the agent stopped, want 2", n)
	}
	b.engine.Exit(containerID("web.2"), 7)
	b.start()
	b.state("web.2", model.TaskFailed)
	if got := b.task("web.1").Status.State; got != model.TaskRunning {
		t.Errorf("web.1 is %s", got)
	}
}

// A restarted agent hears of a master before it has the master's state. What
// it ran goes on until the state is certain.
func TestRestartedAgentWaitsForTheStateBeforeItEndsAnything(t *testing.T) {
	b := newBench(t)
	b.start()
	b.app(model.AppSpec{Image: "web:1"})
	b.place("web.1")
	b.state("web.1", model.TaskRunning)
	b.stop()
	full := b.log
	b.log = &log{store: state.New()} // nothing known yet, but a master answers
	b.sync = func(context.Context) error { return errors.New("not there yet") }
	b.start()
	time.Sleep(100 * time.Millisecond) // several rounds
	if n := len(b.engine.IDs()); n != 1 {
		t.Fatalf("%d containers, want 1", n)
	}
	b.stop()
	b.log, b.sync = full, nil
	b.start()
	b.state("web.1", model.TaskRunning)
}

func TestExitWhileMastersAreDownIsReportedLater(t *testing.T) {
	b := newBench(t)
	b.start()
	b.app(model.AppSpec{Image: "web:1"})
	b.place("web.1")
	b.state("web.1", model.TaskRunning)
	b.log.down.Store(true)
	b.engine.Exit(containerID("web.1"), 1)
	b.until("exit noticed", func() bool { return len(b.engine.IDs()) == 0 })
	b.stop()
	b.start()
	b.log.down.Store(false)
	b.state("web.1", model.TaskFailed)
}

func TestLostTaskIsEndedWhenTheNodeComesBack(t *testing.T) {
	b := newBench(t)
	b.start()
	b.app(model.AppSpec{Image: "web:1"})
	b.place("web.1")
	b.state("web.1", model.TaskRunning)
	b.do(&command.SetNodeStatus{Node: "n1", Status: model.NodeDown, Why: "silent"})
	b.state("web.1", model.TaskLost)
	b.until("container removed", func() bool { return len(b.engine.IDs()) == 0 })
}

func TestUnknownContainersAreRemovedOnlyWhenTheStateIsFresh(t *testing.T) {
	b := newBench(t)
	b.fresh.Store(false)
	rt := b.engine.Open()
	ctx := context.Background()
	if _, err := rt.Pull(ctx, "web:1", runtime.PullOptions{}); err != nil {
		t.Fatal(err)
	}
	spec := runtime.ContainerSpec{ID: "stray", Image: "web:1", Labels: map[string]string{labelNode: "n1", labelTask: "gone"}}
	if err := errors.Join(rt.Create(ctx, spec), rt.Start(ctx, "stray")); err != nil {
		t.Fatal(err)
	}
	b.start()
	time.Sleep(50 * time.Millisecond)
	if n := len(b.engine.IDs()); n != 1 {
		t.Fatalf("%d containers while the state is stale, want 1", n)
	}
	b.fresh.Store(true)
	b.until("stray removed", func() bool { return len(b.engine.IDs()) == 0 })
}

// While nobody can replace an ill instance, it stays: it may be ill because
// of what has taken the masters away.
func TestIllTaskStaysWhileMastersAreDown(t *testing.T) {
	var ok atomic.Bool
	ok.Store(true)
	b := newBench(t)
	port := checked(t, &ok)
	b.start()
	b.app(model.AppSpec{Image: "web:1", Ports: []model.Port{{ContainerPort: 80}}, Checks: []model.Check{{
		Type: "http", Path: "/", Failures: 1, Interval: model.Duration(5 * time.Millisecond)}}})
	b.place("web.1", port)
	b.until("healthy", func() bool { return b.task("web.1").Ready(true) })
	b.log.down.Store(true)
	ok.Store(false)
	time.Sleep(40 * killFactor * 5 * time.Millisecond) // it would be ended many times
	if n := len(b.engine.IDs()); n != 1 {
		t.Fatalf("%d containers, want 1", n)
	}
	b.log.down.Store(false)
	b.until("ended when somebody knows", func() bool { return b.task("web.1").Status.State == model.TaskFailed })
}

// checked serves health checks that pass while ok is true; it returns the port.
func checked(t *testing.T, ok *atomic.Bool) int {
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !ok.Load() {
			w.WriteHeader(500)
		}
	})}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { srv.Close() })
	_, p, _ := net.SplitHostPort(ln.Addr().String())
	port, _ := strconv.Atoi(p)
	return port
}

func TestHealthFollowsTheCheck(t *testing.T) {
	var ok atomic.Bool
	port := checked(t, &ok)
	b := newBench(t)
	b.start()
	b.app(model.AppSpec{Image: "web:1", Ports: []model.Port{{ContainerPort: 80}}, Checks: []model.Check{{
		Type: "http", Path: "/", Failures: 1, Interval: model.Duration(10 * time.Millisecond)}}})
	b.place("web.1", port)
	b.state("web.1", model.TaskRunning)
	if b.task("web.1").Ready(true) {
		t.Error("ready before the check passed")
	}
	ok.Store(true)
	b.until("healthy", func() bool { return b.task("web.1").Ready(true) })
	ok.Store(false)
	b.until("unhealthy, then replaced", func() bool { return b.task("web.1").Status.State == model.TaskFailed })
}

func TestCommandTaskRunsInASandboxAndSurvivesTheAgent(t *testing.T) {
	b := newBench(t)
	b.start()
	b.do(&command.PutFramework{Framework: model.Framework{ID: "f"}})
	b.do(&command.LaunchTasks{Tasks: []model.Task{{ID: "f-1", Framework: "f", Node: "n1",
		Foreign: &model.ForeignTask{TaskID: "1", Shell: true, Value: "echo hello; while [ ! -e go ]; do sleep 0.02; done; exit 4"}}}})
	b.state("f-1", model.TaskRunning)
	b.stop()
	b.start()
	sandbox := filepath.Join(filepath.Dir(LogDir(b.dir, "f-1")), "sandbox")
	if err := os.WriteFile(filepath.Join(sandbox, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.state("f-1", model.TaskFailed)
	if got := b.task("f-1").Status.ExitCode; got == nil || *got != 4 {
		t.Errorf("exit code %v", got)
	}
	out, err := os.ReadFile(filepath.Join(LogDir(b.dir, "f-1"), "stdout"))
	if err != nil || string(out) != "hello\n" {
		t.Errorf("stdout %q, %v", out, err)
	}
}

func TestContainerIDs(t *testing.T) {
	for name, c := range map[string]struct{ task, want string }{
		"plain":        {"abc-1", "abc-1"},
		"dots":         {"test_notejam.3.x1", "test-notejam-3-x1-"},
		"path escapes": {"../../etc", "etc-"},
	} {
		t.Run(name, func(t *testing.T) {
			got := containerID(c.task)
			if err := runtime.ValidateID(got); err != nil {
				t.Error(err)
			}
			if len(got) < len(c.want) || got[:len(c.want)] != c.want {
				t.Errorf("got %q, want prefix %q", got, c.want)
			}
		})
	}
	if containerID("a.b") == containerID("a-b") {
		t.Error("two tasks share a container name")
	}
}

func TestArtifactsAreFetchedIntoTheSandbox(t *testing.T) {
	var archive bytes.Buffer
	z := gzip.NewWriter(&archive)
	w := tar.NewWriter(z)
	body := "#!/bin/sh\necho from-archive\n"
	if err := w.WriteHeader(&tar.Header{Name: "bin/tool", Mode: 0o755, Size: int64(len(body)), Typeflag: tar.TypeReg}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(body)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/tools.tgz":
			_, _ = w.Write(archive.Bytes())
		case "/run":
			_, _ = io.WriteString(w, "#!/bin/sh\nexec ./bin/tool\n")
		default:
			http.NotFound(w, r)
		}
	}))
	defer srv.Close()
	b := newBench(t)
	b.start()
	b.do(&command.PutFramework{Framework: model.Framework{ID: "f"}})
	launch := func(id string, uris ...model.URI) {
		b.do(&command.LaunchTasks{Tasks: []model.Task{{ID: id, Framework: "f", Node: "n1",
			Foreign: &model.ForeignTask{TaskID: id, Shell: true, Value: "./run", URIs: uris}}}})
	}
	launch("good", model.URI{Value: srv.URL + "/tools.tgz", Extract: true}, model.URI{Value: srv.URL + "/run", Executable: true})
	b.state("good", model.TaskFinished)
	if out, err := os.ReadFile(filepath.Join(LogDir(b.dir, "good"), "stdout")); string(out) != "from-archive\n" {
		t.Errorf("stdout %q, %v", out, err)
	}
	launch("escape", model.URI{Value: srv.URL + "/run", File: "../../../run"})
	b.state("escape", model.TaskError)
	launch("missing", model.URI{Value: srv.URL + "/gone"})
	b.state("missing", model.TaskFailed)
}

func TestInstancesThatAreAllSickAreNotEndedForIt(t *testing.T) {
	var ok atomic.Bool
	ok.Store(true)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !ok.Load() {
			w.WriteHeader(500)
		}
	}))
	defer srv.Close()
	_, p, _ := net.SplitHostPort(srv.Listener.Addr().String())
	port, _ := strconv.Atoi(p)
	b := newBench(t)
	b.start()
	b.app(model.AppSpec{Image: "web:1", Ports: []model.Port{{ContainerPort: 80}}, Checks: []model.Check{{
		Type: "http", Path: "/", Failures: 1, Interval: model.Duration(5 * time.Millisecond)}}})
	b.place("web.1", port)
	b.place("web.2", port+1) // nothing answers there: never ready
	b.state("web.2", model.TaskRunning)
	b.until("web.1 ready", func() bool { return b.task("web.1").Ready(true) })
	ok.Store(false)
	b.until("web.1 sick", func() bool {
		h := b.task("web.1").Status.Healthy
		return h != nil && !*h
	})
	time.Sleep(200 * time.Millisecond) // many times what would have ended it
	if got := b.task("web.1").Status.State; got != model.TaskRunning {
		t.Errorf("web.1 is %s", got)
	}
	ok.Store(true)
	b.until("web.1 ready again", func() bool { return b.task("web.1").Ready(true) })
}

// A restarted agent begins with an old state. What that wishes may have run and ended long since.
func TestRestartedAgentStartsNothingBeforeTheStateIsCertain(t *testing.T) {
	b := newBench(t)
	b.app(model.AppSpec{Image: "web:1"})
	b.place("web.1")
	var certain atomic.Bool
	b.sync = func(context.Context) error {
		if certain.Load() {
			return nil
		}
		return errors.New("no leader")
	}
	b.start()
	time.Sleep(100 * time.Millisecond)
	if ids := b.engine.IDs(); len(ids) != 0 {
		t.Fatalf("containers %v", ids)
	}
	certain.Store(true)
	b.state("web.1", model.TaskRunning)
}

// A proposal may return before its entry is applied here: the task that has ended is not started again.
func TestEndedTaskIsNotStartedAgainWhileTheStateLags(t *testing.T) {
	r := newReporter("n1", nil, nil, nil)
	r.add(model.TaskStatus{Task: "t", State: model.TaskKilled})
	r.committed([]model.TaskStatus{{Task: "t", State: model.TaskKilled}}, 7)
	if r.seen(6); !r.over("t") {
		t.Error("forgotten at index 6 of 7")
	}
	if r.seen(7); r.over("t") {
		t.Error("kept for ever")
	}
}
