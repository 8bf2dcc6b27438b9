package agent

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"appliance/node/needs"

	"appliance/node/model"
	"appliance/node/runtime"

	"golang.org/x/sys/unix"
)

func TestSecretsAreLaidOutInMemory(t *testing.T) {
	for _, tc := range []struct {
		name, user string
		mode       os.FileMode
		uid        uint32
	}{{"no user", "", 0o444, 0}, {"number", "1234:5", 0o400, 1234}, {"name", "app", 0o444, 0}} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := Config{SecretDir: needs.Disk(t, "1m"), Secrets: func(context.Context, string) (map[string][]byte, error) {
				return map[string][]byte{"db": []byte("s3cret"), "tls": []byte("a\nb")}, nil
			}}
			spec := model.AppSpec{User: tc.user, Secrets: map[string]string{"DB": "db", "TLS": "tls"}}
			c := &container{cfg: cfg, task: model.Task{ID: "test_web.abc"}, spec: spec}
			mounts, err := c.secretMounts(t.Context())
			if err != nil || len(mounts) != 2 || mounts[0].Path != "/run/secrets" || !mounts[0].ReadOnly || !mounts[1].ReadOnly {
				t.Fatalf("%+v: %v", mounts, err)
			}
			raw, err := os.ReadFile(filepath.Join(mounts[0].dir, "db"))
			if err != nil || string(raw) != "s3cret" {
				t.Errorf("%q: %v", raw, err)
			}
			var st unix.Stat_t
			if err := unix.Stat(filepath.Join(mounts[0].dir, "tls"), &st); err != nil || os.FileMode(st.Mode).Perm() != tc.mode || st.Uid != tc.uid {
				t.Errorf("mode %o, owner %d: %v", st.Mode, st.Uid, err)
			}
			cs := containerSpec(cfg, c.task, spec, mounts)
			for _, kv := range cs.Env {
				if strings.Contains(kv, "s3cret") {
					t.Errorf("the engine is told %s", kv)
				}
			}
			if got := c.wrapped([]string{"check"}); len(got) != 2 || got[0] != wrapperPath {
				t.Errorf("%v", got)
			}
			if err := dropSecrets(cfg, c.task.ID); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(mounts[0].dir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("they are still there: %v", err)
			}
			if _, err := c.keptSecrets(); err == nil {
				t.Error("what is gone can be mounted")
			}
		})
	}
}

func TestSecretsThatAreNotThereAreNotTriedAgain(t *testing.T) {
	for _, tc := range []struct {
		name  string
		err   error
		again bool
	}{
		{"removed", model.Errorf(model.CodeNotFound, "there is no secret db"), false},
		{"not ours", model.Errorf(model.CodeDenied, "no"), false},
		{"no leader", model.Errorf(model.CodeUnavailable, "no leader"), true},
		{"connection", errors.New("connection refused"), true},
	} {
		c := &container{cfg: Config{SecretDir: t.TempDir(), Secrets: func(context.Context, string) (map[string][]byte, error) { return nil, tc.err }},
			spec: model.AppSpec{Secrets: map[string]string{"DB": "db"}}}
		_, err := c.secretMounts(t.Context())
		if err == nil || passing(err) != tc.again || errors.Is(err, runtime.ErrInvalid) == tc.again {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

// The wrapper is this test binary under the wrapper's name, in a mount
// namespace where /run/secrets is what a container would see.
func TestWrapperBecomesTheApp(t *testing.T) {
	dir := needs.Disk(t, "1m")
	if err := os.WriteFile(filepath.Join(dir, ".env"), []byte("DB=two\nlines\x00OTHER=x=y\x00"), 0o444); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	run := func(args string) (string, error) {
		cmd := exec.Command("/bin/sh", "-c", `mount -t tmpfs tmpfs /run && mkdir /run/secrets && mount --bind "$1" /run/secrets && exec -a `+wrapperPath+` "$2" `+args, "sh", dir, self)
		cmd.Path, _ = exec.LookPath("bash") // exec -a
		cmd.Args[0] = "bash"
		cmd.SysProcAttr = &unix.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := run(`sh -c 'echo "$DB|$OTHER|$0|$1"' name arg`)
	if err != nil || out != "two\nlines|x=y|name|arg\n" {
		t.Errorf("%q: %v", out, err)
	}
	out, err = run("no-such-program")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 127 || !strings.Contains(out, "no-such-program") || strings.Contains(out, "lines") {
		t.Errorf("%q: %v", out, err)
	}
}
