package story

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"appliance/node/needs"

	"appliance/node/lab"
	"appliance/vagrant"
)

// TestEndToEnd tells the demo's story with the demo's code, in a lab of its
// own, and adds what a demo does not show: bad input, lost masters, and
// processes killed at any moment while writes are acknowledged.
func TestEndToEnd(t *testing.T) {
	needs.Root(t)
	s := newStory(t)
	steps := s.Steps()
	step := func(name string, run func(ctx context.Context) error) {
		t.Helper()
		began := time.Now()
		ok := t.Run(name, func(t *testing.T) {
			if err := run(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
		t.Logf("%s took %s", name, short(time.Since(began)))
		if !ok {
			s.explain(t)
			t.FailNow() // the next steps build on this one
		}
	}
	for _, st := range steps[:4] {
		step(st.Name, st.Run)
	}
	t.Run("bad input", func(t *testing.T) { testBadInput(t, s) })
	for _, st := range steps[4:] {
		step(st.Name, st.Run)
	}
	step("pages", s.PagesAnswer)
	t.Run("agent process", func(t *testing.T) { testAgentProcess(t, s) })
	t.Run("lost majority", func(t *testing.T) { testLostMasters(t, s, 2, "1 of 3 masters answer") })
	t.Run("no master", func(t *testing.T) { testLostMasters(t, s, 3, "0 of 3 masters answer") })
	t.Run("acknowledged writes", func(t *testing.T) { testAcknowledgedWrites(t, s) })
	step("session is still there", func(ctx context.Context) error {
		p, err := s.user.get(ctx, "/")
		if err != nil {
			return err
		}
		return s.user.sees(p, s.note)
	})
	if t.Failed() {
		s.explain(t)
	}
}

// newStory is a story in a lab on a network of this process's own, removed at
// the end.
func newStory(t *testing.T) *Story {
	t.Helper()
	return newStoryOf(t, "APPLIANCE_BINARY", "")
}

// newStoryOf is newStory with the appliance that env names, or that is built with one more tag.
func newStoryOf(t *testing.T, env, tag string) *Story {
	t.Helper()
	dir, err := os.MkdirTemp("", "story")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { // nobody runs the binary, too
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	var out bytes.Buffer
	o := Options{Dir: filepath.Join(dir, "l"), Name: fmt.Sprintf("e%d", os.Getpid()), ClusterFile: filepath.Join(dir, "cluster.yaml"),
		Binary: filepath.Join(dir, "appliance"), App: filepath.Join(dir, "cmd", "notejam"), Out: io.MultiWriter(&out, logged{t})}
	writeCluster(t, o.ClusterFile)
	programTagged(t, env, "appliance", o.Binary, tag)
	program(t, "NOTEJAM_BINARY", "notejam", filepath.Join(dir, "bin", "notejam"))
	if err := os.MkdirAll(o.App, 0o755); err != nil {
		t.Fatal(err)
	}
	copyTo(t, filepath.Join(project, "cmd", "notejam", "appliance.yaml"), filepath.Join(o.App, "appliance.yaml"))
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Down(context.Background(), lab.Options{Dir: o.Dir, Name: o.Name}); err != nil {
			t.Error(err)
		}
	})
	return s
}

// project is the way to the module's root.
const project = "../../.."

// writeCluster moves the real description to a network that nobody has
// (RFC 2544, the second half; the lab's own tests use the first).
func writeCluster(t *testing.T, path string) {
	t.Helper()
	c, err := vagrant.Load()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(project, "vagrant", "cluster.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	b := c.Network.Addr().As4()
	moved := strings.ReplaceAll(string(text), fmt.Sprintf("%d.%d.%d.", b[0], b[1], b[2]), fmt.Sprintf("198.19.%d.", os.Getpid()%256))
	if err := os.WriteFile(path, []byte(moved), 0o644); err != nil {
		t.Fatal(err)
	}
}

// program puts a program to path: the one that the environment names, or a
// fresh build.
func program(t *testing.T, env, name, path string) { programTagged(t, env, name, path, "") }

// programTagged is program with one more build tag.
func programTagged(t *testing.T, env, name, path, tag string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if have := os.Getenv(env); have != "" {
		copyTo(t, have, path)
		return
	}
	tags := "no_cri,no_btrfs,no_zfs,no_devmapper,no_tracing"
	if _, err := os.Stat(filepath.Join(project, "node/runtime/containerd/runc/runc.zst")); err == nil {
		tags += ",embedrunc"
	}
	if tag != "" {
		tags += "," + tag
	}
	build := []string{"build"}
	if tag == "skewed" {
		build = []string{"run", "./node/lab/skew"}
	}
	cmd := exec.Command("go", append(build, "-tags", tags, "-o", path, "./cmd/"+name)...)
	cmd.Dir, cmd.Env = project, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
}

func copyTo(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, text, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// logged writes the story into the test's log.
type logged struct{ t *testing.T }

func (l logged) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

// explain logs what the machines say after a failure.
func (s *Story) explain(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, args := range [][]string{{"status"}, {"ps", "--all"}, {"events"}} {
		res, err := s.Command(ctx, args...)
		t.Logf("appliance %s: %v\n%s%s", strings.Join(args, " "), err, res.Stdout, res.Stderr)
	}
	if s.lab == nil {
		return
	}
	for _, m := range s.cluster.Machines {
		var b bytes.Buffer
		err := s.lab.Logs(ctx, m.Name, 25, false, &b)
		t.Logf("log of %s: %v\n%s", m.Name, err, b.String())
	}
}
