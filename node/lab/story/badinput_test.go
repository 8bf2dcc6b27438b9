package story

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"net"

	"github.com/vishvananda/netns"
)

// badTime bounds every refusal: a person waits for it.
const badTime = 20 * time.Second

// testBadInput gives each bad input, and wants an error that says what to do,
// the exit code, and that nothing has changed.
func testBadInput(t *testing.T, s *Story) {
	master := s.cluster.Masters()[0].Name
	token := s.token(t)
	expired := s.token(t, "--ttl", "1s")
	time.Sleep(time.Until(time.Now().Add(1100 * time.Millisecond)))
	join := func(name, token string) []string {
		return []string{"lab", "exec", "ms4", "appliance", "join", s.addr(master), "--name", name, "--advertise", s.addr("ms4"),
			"--data", "/tmp/second-life", "--no-start", "--token", token}
	}
	remote := []string{"--address", "http://" + s.addr(master) + ":8080"}
	unknownField := s.file(t, "name: odd\napp: {image: notejam, instancs: 3}\n")
	badValue := s.file(t, "name: odd\napp: {image: notejam, instances: -3}\n")
	constraint := s.file(t, "name: odd\napp: {image: notejam, instances: 1, constraints: [{attribute: rack, operator: LIKE, value: nowhere}]}\n")
	tooBig := s.file(t, "name: odd\napp: {image: notejam, instances: 1, resources: {cpus: 1000, mem: 32}}\n")
	for _, tt := range []struct {
		name string
		args []string
		code int
		want []string // in the error
	}{
		{"no token", join("ms9", ""), 1, []string{"needs a token", "appliance token create"}},
		{"garbled token", join("ms9", "garbage"), 1, []string{"token is malformed", "copy the whole token"}},
		{"wrong token", join("ms9", wrong(token)), 1, []string{"token", "copy the whole token"}},
		{"expired token", join("ms9", expired), 1, []string{"expired", "make a new one"}},
		{"duplicate node name", join("ms1", token), 1, []string{"the name ms1 is taken", "alive", "--name"}},
		{"member already", []string{"lab", "exec", "ms4", "appliance", "init"}, 1, []string{"already part of a cluster", "appliance leave"}},
		{"not a master", []string{"lab", "exec", "ms4", "appliance", "join", s.addr("ms1"), "--name", "ms9", "--advertise", s.addr("ms4"),
			"--data", "/tmp/second-life", "--no-start", "--token", token}, 1, []string{s.addr("ms1")}},
		{"unknown environment", []string{"deploy", appName, "--env", "nowhere"}, 1, []string{`no environment "nowhere"`, "appliance env create"}},
		{"no environment", []string{"deploy", appName}, 1, []string{"environment", "--env"}},
		{"unknown app", []string{"deploy", "ghost", "--env", envTest}, 1, []string{`no image "ghost"`, "appliance build"}},
		{"image not there", []string{"deploy", appName, "--env", envTest, "--image", "nothere:1"}, 1, []string{"no image nothere:1", "push it first"}},
		{"unknown field", []string{"deploy", "-f", unknownField, "--env", envTest}, 1, []string{`unknown field "instancs"`, "check the spelling"}},
		{"impossible number", []string{"deploy", "-f", badValue, "--env", envTest}, 1, []string{"instances"}},
		{"impossible constraint", []string{"deploy", "-f", constraint, "--env", envTest}, 2, []string{"rack LIKE nowhere"}},
		{"impossible size", []string{"deploy", "-f", tooBig, "--env", envTest}, 2, []string{"1000"}},
		{"scale of nothing", []string{"scale", "ghost", "--env", envTest, "2"}, 1, []string{"no app /test/ghost"}},
		{"scale to a word", []string{"scale", appName, "--env", envTest, "many"}, 1, []string{"not a number"}},
		{"promotion of nothing", []string{"promote", "ghost", "--from", envTest, "--to", envProd}, 1, []string{"/test/ghost"}},
		{"promotion to itself", []string{"promote", appName, "--from", envTest, "--to", envTest}, 1, []string{"two different environments"}},
		{"wrong API token", append(remote, "--token", "appl_aaaa_bbbb", "scale", appName, "--env", envTest, "4"), 1, []string{"token is not valid", "appliance token create"}},
		{"write from afar without a token", append(remote, "scale", appName, "--env", envTest, "4"), 1, []string{"Permission denied", "token"}},
		{"nobody there", []string{"--address", "http://" + s.addr("ms1") + ":1", "status"}, 1, []string{"does not answer", "--address"}},
		{"full disk", []string{"lab", "exec", "ms4", "sh", "-c", "mkdir -p /mnt/small && mount -t tmpfs -o size=32m none /mnt/small && " +
			"{ appliance init --name x --advertise " + s.addr("ms4") + " --data /mnt/small --no-start; code=$?; test -z \"$(ls /mnt/small)\" || code=9; umount /mnt/small; exit $code; }"},
			1, []string{"disk of /mnt/small is full", "64 are needed", "free some space"}},
		{"second process", []string{"lab", "exec", "ms4", "appliance", "run"}, 1, []string{"another appliance runs on this machine"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.refused(t, tt.code, tt.want, func(ctx context.Context) (Result, error) { return s.Command(ctx, tt.args...) })
		})
	}
	t.Run("not root", func(t *testing.T) { testNotRoot(t, s) })
	t.Run("port in use", func(t *testing.T) { testPortInUse(t, s) })
}

// refused wants a command to fail as it should, and nothing to change by it.
func (s *Story) refused(t *testing.T, code int, want []string, run func(context.Context) (Result, error)) {
	t.Helper()
	before := s.fingerprint(t)
	ctx, cancel := context.WithTimeout(t.Context(), badTime)
	defer cancel()
	res, err := run(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if res.Code != code {
		t.Errorf("exit code %d, want %d", res.Code, code)
	}
	for _, w := range want {
		if !strings.Contains(res.Stderr, w) {
			t.Errorf("the error does not say %q", w)
		}
	}
	if t.Failed() {
		t.Logf("it said: %s%s", res.Stderr, res.Stdout)
	}
	if after := s.fingerprint(t); after != before {
		t.Errorf("it has changed something:\nbefore %s\nafter  %s", before, after)
	}
}

// fingerprint is everything that bad input must not change.
func (s *Story) fingerprint(t *testing.T) string {
	t.Helper()
	st, err := s.status(t.Context(), s.anyone())
	if err != nil {
		t.Fatal(err)
	}
	var f []string
	for _, n := range st.Nodes {
		f = append(f, fmt.Sprint("node ", n.Name, n.ID, n.Role, n.Addr))
	}
	for _, a := range st.Apps {
		f = append(f, fmt.Sprint("app ", a.ID, a.Release, a.Instances, a.Digest))
	}
	for _, v := range st.Volumes {
		f = append(f, "volume "+v.Name)
	}
	tasks, err := s.tasks(t.Context(), s.anyone(), envTest)
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		f = append(f, "task "+task.ID)
	}
	slices.Sort(f)
	return strings.Join(f, "\n")
}

// token makes a join token for an agent.
func (s *Story) token(t *testing.T, args ...string) string {
	t.Helper()
	res, err := s.Command(t.Context(), append([]string{"token", "create", "--role", "agent", "--json"}, args...)...)
	var made struct{ Token string }
	if err == nil {
		err = json.Unmarshal([]byte(res.Stdout), &made)
	}
	if err != nil || made.Token == "" {
		t.Fatalf("token create: %v %+v", err, res)
	}
	return made.Token
}

// wrong turns the secret of a token around.
func wrong(token string) string {
	cut := strings.LastIndexByte(token, '-') + 1
	secret := []byte(token[cut:])
	slices.Reverse(secret)
	return token[:cut] + string(secret)
}

func (s *Story) file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "app.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// testNotRoot runs the commands that need root as nobody.
func testNotRoot(t *testing.T, s *Story) {
	const nobody = 65534
	for _, args := range [][]string{
		{"lab", "up"}, {"lab", "down"}, {"init"}, {"join", s.addr("mm1"), "--token", "APPL1-x"}, {"leave", "--accept-risk=lose-local-data"},
	} {
		t.Run(args[0], func(t *testing.T) {
			s.refused(t, 1, []string{"root"}, func(ctx context.Context) (Result, error) {
				cmd := exec.CommandContext(ctx, s.o.Binary, args...)
				cmd.Dir = "/"
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
				out, err := cmd.CombinedOutput()
				var exit *exec.ExitError
				if errors.As(err, &exit) {
					err = nil
				}
				return Result{Code: cmd.ProcessState.ExitCode(), Stderr: string(out)}, err
			})
		})
	}
}

// testPortInUse takes ports of a machine while its node is down, and wants
// the node to say so.
func testPortInUse(t *testing.T, s *Story) {
	const machine = "ms4" // it runs nothing yet
	if err := s.lab.Stop(t.Context(), machine); err != nil {
		t.Fatal(err)
	}
	for _, port := range []string{"7600", "8500", "80", "5000"} {
		t.Run(port, func(t *testing.T) {
			ln := s.listenIn(t, machine, "0.0.0.0:"+port)
			defer ln.Close()
			s.refused(t, 1, []string{"cannot listen on", ":" + port, "address already in use", "ss -ltnp"}, func(ctx context.Context) (Result, error) {
				return s.Command(ctx, "lab", "exec", machine, "appliance", "run")
			})
		})
	}
	if err := s.lab.Start(t.Context(), machine); err != nil {
		t.Fatal(err)
	}
	if err := s.everybodyReady(t.Context()); err != nil {
		t.Error(err)
	}
}

// listenIn opens a port in a machine's network namespace.
func (s *Story) listenIn(t *testing.T, machine, addr string) net.Listener {
	t.Helper()
	st, err := s.lab.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	pid := 0
	for _, m := range st.Machines {
		if m.Name == machine {
			pid = m.Pid
		}
	}
	type result struct {
		ln  net.Listener
		err error
	}
	made := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		ns, err := netns.GetFromPid(pid)
		if err != nil {
			made <- result{nil, err}
			return
		}
		defer ns.Close()
		if err := netns.Set(ns); err != nil {
			made <- result{nil, err}
			return
		}
		ln, err := net.Listen("tcp", addr)
		made <- result{ln, err}
	}()
	r := <-made
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.ln
}
