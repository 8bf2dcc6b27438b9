package mesos

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"appliance/node/needs"

	"appliance/node/model"
	"appliance/raft/state"
	"appliance/sched"
	"appliance/sched/schedtest"
)

// mesosGo builds programs of mesos-go, an independent client library, from
// its own module.
func mesosGo(t *testing.T, programs ...string) string {
	t.Helper()
	needs.Time(t, "builds a foreign client")
	dir := t.TempDir()
	args := []string{"build", "-o", dir + string(filepath.Separator)}
	for _, p := range programs {
		args = append(args, "github.com/mesos/mesos-go/api/v1/cmd/"+p)
	}
	build := exec.Command("go", args...)
	build.Dir = filepath.Join("testdata", "mesosgo")
	build.Env = append(os.Environ(), "GOFLAGS=-mod=readonly -buildvcs=false", "CGO_ENABLED=1") // msh wants a terminal through C
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build of mesos-go: %v\n%s", err, out)
	}
	return dir
}

// run runs a program to its end and demands success, or the last words that
// the program says when it is done.
func run(t *testing.T, last, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil && (last == "" || !strings.HasSuffix(strings.TrimSpace(out.String()), last)) {
		t.Fatalf("%s: %v\n%s", filepath.Base(name), err, out.String())
	}
	return out.String()
}

// once lets every task run and then finish.
func once(_ *model.Task, st *model.TaskStatus) {
	switch st.State {
	case model.TaskStaging:
		schedtest.Run(st)
		st.Healthy = nil
	case model.TaskRunning:
		code := 0
		st.State, st.ExitCode = model.TaskFinished, &code
	}
}

func TestMesosGoSchedulers(t *testing.T) {
	dir := mesosGo(t, "example-scheduler", "msh")
	for _, codec := range []string{"json", "protobuf"} {
		t.Run("example-scheduler "+codec, func(t *testing.T) {
			r := newRig(t)
			r.Behave = once
			schedtest.Start(t, r.Agents)
			// It ends itself by cancelling its context and calls that fatal.
			out := run(t, "context canceled", filepath.Join(dir, "example-scheduler"), "-url", r.url+"/api/v1/scheduler", "-codec", codec, "-tasks", "6",
				"-cpu", "1", "-exec.image", "", "-executor", "/bin/true", "-metrics.port", "0", "-failoverTimeout", "0s", "-verbose")
			if !strings.Contains(out, "mission accomplished") {
				t.Errorf("output:\n%s", out)
			}
			r.finished(t, 6, "./true")
		})
	}
	t.Run("msh", func(t *testing.T) { // a command task
		r := newRig(t)
		r.Behave = once
		schedtest.Start(t, r.Agents)
		run(t, "", filepath.Join(dir, "msh"), "-master", strings.TrimPrefix(r.url, "http://"), "--", "echo", "hello")
		r.finished(t, 1, "echo")
	})
}

// finished demands that tasks ended well and that their ends are acknowledged.
func (r *rig) finished(t *testing.T, n int, command string) {
	t.Helper()
	r.Eventually(t, "all is acknowledged", func(s *state.Snapshot) bool {
		done := 0
		for task := range state.Tasks.All(s) {
			if task.Status.State == model.TaskFinished && sched.Acknowledged(task) && strings.HasPrefix(task.Foreign.Value, command) {
				done++
			}
		}
		return done == n
	})
}
