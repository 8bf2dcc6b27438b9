package runtimetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"appliance/discovery/discoverytest"
	"appliance/node/agent"
	"appliance/node/model"
	"appliance/node/runtime"
	"appliance/raft/command"
	"appliance/raft/state"
)

var secretTests = map[string]func(*testing.T, *suite){"Secrets": testSecrets}

// wrapper is what the agent puts before the command of a task with secrets.
const wrapper = "/run/appliance-with-secrets"

// testSecrets lets an agent run two tasks over the driver. Each has its own
// secret, as a file and in its environment, and not the other's; no file of the
// engine has either; after the task nothing has.
func testSecrets(t *testing.T, s *suite) {
	s.needs(t, s.info.Features.Processes, "mounts")
	h := newKeeper(t, s)
	for _, app := range []struct{ name, user string }{{"one", ""}, {"two", "1234"}} {
		h.run(t, app.name, app.user)
	}
	for _, app := range []struct{ own, other string }{{"one", "two"}, {"two", "one"}} {
		id := app.own
		if _, out, errw := s.exec(t, id, "read", "/run/secrets/"+app.own); out != h.values[app.own] {
			t.Errorf("%s: its file has %q %s", app.own, out, errw)
		}
		var out bytes.Buffer
		if _, err := s.rt.Exec(ctx(t), id, runtime.ExecSpec{Args: []string{wrapper, "/app", "env", "SECRET"}, Stdout: &out}); err != nil || out.String() != "SECRET="+h.values[app.own]+"\n" {
			t.Errorf("%s: its environment has %q: %v", app.own, out.String(), err)
		}
		if _, out, _ := s.exec(t, id, "read", "/proc/1/environ"); !strings.Contains(out+"\x00", "\x00SECRET="+h.values[app.own]+"\x00") {
			t.Errorf("%s: the app was started with %q", app.own, out)
		}
		if code, out, _ := s.exec(t, id, "read", "/run/secrets/"+app.other); code == 0 {
			t.Errorf("%s reads %q", app.own, out)
		}
		if code, _, _ := s.exec(t, id, "write", "/run/secrets/"+app.own, "x"); code == 0 {
			t.Errorf("%s can change its secret", app.own)
		}
	}
	h.nowhere(t)
	h.Must(&command.StopTasks{Tasks: []string{"one", "two"}, Why: "the test is over"})
	Eventually(t, "the containers go", func() bool {
		list, err := s.rt.List(ctx(t), map[string]string{"appliance.node": h.node})
		return err == nil && len(list) == 0
	})
	Eventually(t, "the secrets go", func() bool {
		left, err := os.ReadDir(h.dir)
		return err == nil && len(left) == 0
	})
	h.nowhere(t)
	if err := syscall.Unmount(h.dir, 0); err != nil {
		t.Error("something still holds the secrets' memory:", err)
	}
}

// keeper is an agent over the suite's driver, and its masters.
type keeper struct {
	*discoverytest.Cluster
	node, dir string            // dir: where the agent keeps secrets
	values    map[string]string // the secret of each task
}

// present is a driver whose images are there already.
type present struct{ runtime.Runtime }

func (present) Pull(context.Context, string, runtime.PullOptions) (runtime.Image, error) {
	return runtime.Image{}, nil
}

func newKeeper(t *testing.T, s *suite) *keeper {
	h := &keeper{Cluster: discoverytest.New(), node: "id-ms1", dir: filepath.Join(Dir(t), "secrets"), values: map[string]string{}}
	h.Node("ms1", "127.0.0.1", model.RoleAgent)
	imgs, err := s.rt.Import(ctx(t), bytes.NewReader(DockerArchive(t, withLibraries(t), secretsRef)))
	if err != nil || len(imgs) != 1 {
		t.Fatal("import:", imgs, err)
	}
	a, err := agent.Open(agent.Config{Node: h.node, Name: "ms1", Addr: "127.0.0.1", Dir: Dir(t), Store: h.Store, Proposer: h, Runtime: present{s.rt},
		Fresh: func() bool { return true }, SecretDir: h.dir, Log: slog.New(slog.DiscardHandler),
		Secrets: func(_ context.Context, task string) (map[string][]byte, error) {
			return map[string][]byte{task: []byte(h.values[task])}, nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	run, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(run) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-done, a.Close()); err != nil {
			t.Error(err)
		}
		_ = syscall.Unmount(h.dir, syscall.MNT_DETACH) // if the test has failed
	})
	return h
}

// run places the task of an app, with the same name, and waits until it runs.
func (h *keeper) run(t *testing.T, name, user string) {
	t.Helper()
	h.values[name] = name + "/" + rand.Text()
	app := "/test/" + name
	spec := model.AppSpec{ID: app, Image: secretsRef, Args: []string{"run"}, User: user, Network: "none", Secrets: map[string]string{"SECRET": name}}
	h.Must(&command.PutSecret{Secret: model.Secret{Name: name, Env: "test", Version: 1, Key: "k1", Wrapped: []byte("only masters open it")}},
		&command.CreateRelease{Release: model.Release{App: app, Spec: spec}, Instances: 1, Deployment: model.Deployment{ID: name}},
		&command.CreateTasks{Tasks: []model.Task{{ID: name, App: app, Release: 1, Env: "test"}}},
		&command.Place{Placements: []model.Placement{{Task: name, Node: h.node}}})
	Eventually(t, name+" runs", func() bool {
		st := state.Tasks.Get(h.Store.Snapshot(), name).Status
		if st.State.Terminal() {
			t.Fatalf("%s: %s %s", name, st.State, st.Message)
		}
		return st.State == model.TaskRunning
	})
}

// nowhere looks for the secrets in every file that the engine and the agent
// have: on disk, and in the run directory.
func (h *keeper) nowhere(t *testing.T) {
	t.Helper()
	looked := 0
	for _, root := range []string{os.Getenv(isolatedEnv), "/run"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			switch {
			case path == h.dir:
				return fs.SkipDir
			case err != nil || !d.Type().IsRegular():
				return nil // gone meanwhile, or no file
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return nil
			}
			looked++
			for name, value := range h.values {
				if bytes.Contains(text, []byte(value)) {
					t.Errorf("%s has the secret of %s", path, name)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if looked < 10 {
		t.Errorf("only %d files were found", looked)
	}
}

const secretsRef = "conformance.test/secrets:1"

// withLibraries is the suite's image with what this test's binary is linked to:
// it becomes the wrapper, and under the race detector it is not static.
func withLibraries(t *testing.T) Blobs {
	t.Helper()
	files := map[string][]byte{}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	list, _ := exec.Command("ldd", self).Output() // fails for a static binary
	for _, word := range strings.Fields(string(list)) {
		if !strings.HasPrefix(word, "/") {
			continue
		}
		if files[word[1:]], err = os.ReadFile(word); err != nil {
			t.Fatal(fmt.Errorf("a library: %w", err))
		}
	}
	return imageOf(t, files)
}
