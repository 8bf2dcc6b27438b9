package cli

import (
	"context"
	"flag"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"appliance/discovery"
	"appliance/discovery/consul"
	"appliance/discovery/discoverytest"
	"appliance/node/api"
	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
	"appliance/sched"
	"appliance/sched/schedtest"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"appliance": func() { os.Exit(Main("v1.2.3", os.Args[1:])) },
	})
}

// TestScripts runs testdata/script. A script whose name begins with "cluster"
// finds the API of a cluster with two agents of test and one of production at
// APPLIANCE_ADDR: real handlers and the real scheduler over a state without a
// log, and agents that only say that tasks run.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			for _, name := range variables {
				e.Setenv(name, "")
			}
			e.Setenv("GORACE", "atexit_sleep_ms=0") // or every command of a race build takes a second
			if strings.HasPrefix(e.T().(testing.TB).Name(), "TestScripts/cluster") {
				return serveCluster(e)
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exit": exitCode},
	})
}

// exitCode is "exit CODE COMMAND...": the command must end with that code.
func exitCode(ts *testscript.TestScript, neg bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	code := "0"
	if e, ok := err.(interface{ ExitCode() int }); ok {
		code = string(rune('0' + e.ExitCode()))
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if code != args[0] || neg {
		ts.Fatalf("exit code is %s, want %s", code, args[0])
	}
}

const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func serveCluster(e *testscript.Env) error {
	t := e.T().(testing.TB)
	c := schedtest.New(t)
	c.Must(t, &command.InitCluster{Cluster: model.Cluster{ID: "c1", Name: "house", VIP: "192.0.2.100"}})
	c.Must(t, &command.RegisterNode{Node: model.Node{ID: "mm1", Name: "mm1", Role: model.RoleMaster, Addr: "192.0.2.1", Status: model.NodeReady, StartedAt: time.Now()}})
	c.AddAgent(t, "ms1", "test")
	c.AddAgent(t, "ms2", "test")
	c.AddAgent(t, "ms3", "production")
	for _, repo := range []string{"web", "broken"} {
		c.Must(t, &command.PutManifest{Manifest: model.Manifest{Repo: repo, Digest: digest, PushedAt: time.Now()}, Tags: []string{"latest"}})
	}
	c.Behave = func(task *model.Task, st *model.TaskStatus) {
		rel := state.Releases.Get(c.Store.Snapshot(), model.ReleaseKey(task.App, task.Release))
		if rel != nil && rel.Spec.Image == "broken" {
			st.State, st.Message = model.TaskFailed, "exited with 1"
		} else if st.State != model.TaskRunning {
			schedtest.Run(st)
		}
	}
	catalog := discovery.NewWatcher(c.Store, discoverytest.NewLiveness())
	log := slog.New(slog.DiscardHandler)
	loop := &sched.Loop{Store: c.Store, Proposer: c, Self: "mm1", NewID: c.NewID, Log: log}
	for _, run := range []func(context.Context) error{catalog.Run, loop.Run, func(ctx context.Context) error { c.Agents(ctx); return nil }} {
		schedtest.Start(t, func(ctx context.Context) { _ = run(ctx) }) // ends with its context
	}
	own := (&api.Server{Store: c.Store, Cluster: cluster{c, catalog}, Images: images{}, Version: "v1.2.3", Log: log,
		Proposer:  &api.Admission{Next: c, Store: c.Store, Registry: "127.0.0.1:5000", Admit: sched.Admit},
		Authorize: func(*http.Request, api.Need) error { return nil }}).Handler()
	dialect := consul.New(consul.Config{Store: c.Store, Catalog: catalog, Proposer: c, Leader: func() string { return "mm1" }, Log: log,
		ReadIndex: func(context.Context) (uint64, error) { return c.Store.Index(), nil }, NodeID: "mm1", Node: "mm1", Addr: "192.0.2.1"})
	return serveSocket(e, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1/") {
			dialect.ServeHTTP(w, r)
			return
		}
		own.ServeHTTP(w, r)
	}))
}

// serveSocket serves h for the script. The path of a socket is short, that of
// a script's directory need not be.
func serveSocket(e *testscript.Env, h http.Handler) error {
	dir, err := os.MkdirTemp("", "cli")
	if err != nil {
		return err
	}
	ln, err := net.Listen("unix", dir+"/api.sock")
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }() // ends by Close
	e.Defer(func() {
		srv.Close()
		<-done
		os.RemoveAll(dir)
	})
	e.Setenv("APPLIANCE_ADDR", "unix://"+dir+"/api.sock")
	return nil
}

// cluster is what the API asks of a node.
type cluster struct {
	*schedtest.Cluster
	catalog *discovery.Watcher
}

func (cluster) Self() string                              { return "mm1" }
func (cluster) Leader() string                            { return "mm1" }
func (cluster) Fresh() bool                               { return true }
func (cluster) Sync(context.Context) error                { return nil }
func (cluster) Alive(string) bool                         { return true }
func (cluster) VIPHolder() string                         { return "mm1" }
func (cluster) Votes() []string                           { return nil }
func (cluster) Warnings() []string                        { return []string{"1 master: join more"} }
func (cluster) Confirm(context.Context) (time.Time, bool) { return time.Time{}, true }

func (c cluster) Catalog(context.Context) (*discovery.Table, error) { return c.catalog.Current(), nil }

func (cluster) Logs(_ context.Context, t *model.Task, stream string, _ bool, _ int, w io.Writer) error {
	_, err := io.WriteString(w, "hello from "+stream+"\n")
	return err
}

func (cluster) NewJoinToken(role model.Role, now time.Time) (string, model.JoinToken, error) {
	return "APPL1-secret", model.JoinToken{ID: "j1", Role: role, CreatedAt: now}, nil
}

func (cluster) NewAPIToken(now time.Time) (string, model.APIToken, error) {
	return "appl_secret", model.APIToken{ID: "a1", CreatedAt: now}, nil
}

type images struct{}

func (images) Labels(context.Context, string, string) (map[string]string, error) {
	return map[string]string{api.SpecLabel: `{"instances": 2, "ports": [{"containerPort": 8000}], "routes": [{"host": "app-{env}"}], "upgrade": {"deadline": "2s"}}`}, nil
}
