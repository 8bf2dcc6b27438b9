package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"appliance/node/model"
	"appliance/node/runtime"

	"golang.org/x/sys/unix"
)

// Where a container finds its secrets, and the program that puts them into
// the environment of the app: engines write the environment that they are
// told to disk, so they are not told.
const (
	secretsPath = "/run/secrets"
	secretsEnv  = ".env" // in secretsPath: K=V, ended by zero bytes
	wrapperPath = "/run/appliance-with-secrets"
)

// maxTmpfs bounds the memory of all secrets on a node.
const maxTmpfs = "size=64m"

// secretMounts fetches the secrets of a task and lays them out in memory.
func (c *container) secretMounts(ctx context.Context) ([]mount, error) {
	if len(c.spec.Secrets) == 0 {
		return nil, nil
	}
	if c.cfg.Secrets == nil {
		return nil, runtime.Fail(runtime.ErrUnsupported, nil, "use secrets")
	}
	values, err := c.cfg.Secrets(ctx, c.task.ID)
	if err != nil {
		if code := model.CodeOf(err); code == model.CodeNotFound || code == model.CodeDenied {
			return nil, runtime.Fail(runtime.ErrInvalid, err, "fetch secrets")
		}
		return nil, fmt.Errorf("fetch secrets: %w", err)
	}
	if err := layOut(c.cfg.SecretDir, secretsDir(c.cfg, c.task.ID), c.spec, values); err != nil {
		return nil, fmt.Errorf("keep secrets in memory: %w", err)
	}
	return c.keptSecrets()
}

// keptSecrets are the mounts of what an earlier fetch has left in memory. A
// machine that was switched off has none.
func (c *container) keptSecrets() ([]mount, error) {
	if len(c.spec.Secrets) == 0 {
		return nil, nil
	}
	dir := secretsDir(c.cfg, c.task.ID)
	if _, err := os.Stat(filepath.Join(dir, secretsEnv)); err != nil {
		return nil, errors.New("its secrets are not in memory any more; a master must be asked")
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return []mount{
		{VolumeMount: model.VolumeMount{Path: secretsPath, ReadOnly: true}, dir: dir},
		{VolumeMount: model.VolumeMount{Path: wrapperPath, ReadOnly: true}, dir: self},
	}, nil
}

func secretsDir(cfg Config, task string) string {
	return filepath.Join(cfg.SecretDir, containerID(task))
}

// layOut writes the files of one task below root, which is on no disk.
func layOut(root, dir string, spec model.AppSpec, values map[string][]byte) error {
	if err := inMemory(root); err != nil {
		return err
	}
	// What an earlier try has left has other values.
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil { // root is for root only; inside it is the container's
		return err
	}
	files := map[string][]byte{}
	var env bytes.Buffer
	for variable, name := range spec.Secrets {
		value, ok := values[name]
		if !ok {
			return fmt.Errorf("the master did not send %s", name)
		}
		files[name] = value
		fmt.Fprintf(&env, "%s=%s\x00", variable, value)
	}
	files[secretsEnv] = env.Bytes()
	uid, mode := owner(spec.User)
	for name, value := range files {
		path := filepath.Join(dir, filepath.Base(name))
		if err := os.WriteFile(path, value, mode); err != nil {
			return err
		}
		if err := errors.Join(os.Chmod(path, mode), os.Chown(path, uid, -1)); err != nil {
			return err
		}
	}
	return nil
}

// owner gives the files to the container's user if its number is known. A
// name has its number inside the image: then all of the container may read.
func owner(user string) (uid int, mode os.FileMode) {
	first, _, _ := strings.Cut(user, ":")
	if n, err := strconv.ParseUint(first, 10, 31); err == nil {
		return int(n), 0o400
	}
	return 0, 0o444
}

// inMemory makes root a directory in memory, never swapped where the kernel
// can (6.4).
func inMemory(root string) error {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		return err
	}
	if st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC {
		return os.Chmod(root, 0o700)
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	err := unix.Mount("tmpfs", root, "tmpfs", flags, maxTmpfs+",mode=0700,noswap")
	if errors.Is(err, unix.EINVAL) {
		err = unix.Mount("tmpfs", root, "tmpfs", flags, maxTmpfs+",mode=0700")
	}
	return err
}

// dropSecrets forgets those of a task that is over.
func dropSecrets(cfg Config, task string) error {
	if cfg.SecretDir == "" {
		return nil
	}
	err := os.RemoveAll(secretsDir(cfg, task))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// sweepSecrets forgets those of tasks that do not run here.
func (a *Agent) sweepSecrets() {
	entries, err := os.ReadDir(a.cfg.SecretDir)
	if a.cfg.SecretDir == "" || err != nil {
		return
	}
	live := map[string]bool{}
	for id := range a.workers {
		live[containerID(id)] = true
	}
	for _, e := range entries {
		if !live[e.Name()] {
			os.RemoveAll(filepath.Join(a.cfg.SecretDir, e.Name()))
		}
	}
}

// wrapped puts the wrapper before a command inside the container.
func (c *container) wrapped(args []string) []string {
	if len(c.spec.Secrets) == 0 {
		return args
	}
	return append([]string{wrapperPath}, args...)
}

// withSecrets becomes the app, inside its container: it takes the secrets into
// the environment and gives the process up for it.
func withSecrets(args []string) error {
	raw, err := os.ReadFile(filepath.Join(secretsPath, secretsEnv))
	if err != nil {
		return err
	}
	if len(args) == 0 {
		return errors.New("the image has no command")
	}
	for kv := range strings.SplitSeq(strings.TrimSuffix(string(raw), "\x00"), "\x00") {
		key, value, _ := strings.Cut(kv, "=")
		if err := os.Setenv(key, value); err != nil {
			return fmt.Errorf("set %s: it has a zero byte: use the file below %s", key, secretsPath) // never with the value
		}
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	return syscall.Exec(path, args, os.Environ())
}
