package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	apievents "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/containerd/v2/pkg/shim"

	"appliance/node/runtime"
)

// exitsDir is the directory beside the server's socket where exits are kept
// until the container is removed.
const exitsDir = "exits"

// recorder is the shim's publisher that also writes each exit to disk:
// containerd forgets a container that ended while it was down.
type recorder struct {
	shim.Publisher
	dir string
}

// Publish runs in the shim, whose working directory is the bundle.
func (r recorder) Publish(ctx context.Context, topic string, event events.Event) error {
	if e, ok := event.(*apievents.TaskExit); ok && e.ID == e.ContainerID {
		exit := runtime.Exit{Known: true, Code: int(e.ExitStatus), At: e.ExitedAt.AsTime(), OOM: oomKilled(bundleCgroup("."))}
		// Nobody could be told of a failure; the server usually knows anyway.
		_ = writeExit(r.dir, e.ContainerID, exit)
	}
	return r.Publisher.Publish(ctx, topic, event)
}

// bundleCgroup reads the container's cgroup path from its bundle.
func bundleCgroup(bundle string) string {
	b, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil {
		return ""
	}
	var spec struct {
		Linux struct {
			CgroupsPath string `json:"cgroupsPath"`
		} `json:"linux"`
	}
	if json.Unmarshal(b, &spec) != nil {
		return ""
	}
	return spec.Linux.CgroupsPath
}

func exitPath(dir, id string) string { return filepath.Join(dir, id+".json") }

// writeExit keeps the first record of an exit: the shim and the driver may
// both write one, and the first knew most.
func writeExit(dir, id string, exit runtime.Exit) error {
	b, err := json.Marshal(exit)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "."+id+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Link(f.Name(), exitPath(dir, id))
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

func readExit(dir, id string) (runtime.Exit, bool) {
	b, err := os.ReadFile(exitPath(dir, id))
	if err != nil {
		return runtime.Exit{}, false
	}
	var exit runtime.Exit
	if json.Unmarshal(b, &exit) != nil {
		return runtime.Exit{}, false
	}
	return exit, true
}

// A started marker tells a container that was never started from one whose
// exit nobody saw. Both kinds of file lie on tmpfs and go with a reboot, as
// the containers do.
func startedPath(dir, id string) string { return filepath.Join(dir, id+".started") }

func markStarted(dir, id string, at time.Time) error {
	if err := os.WriteFile(startedPath(dir, id), []byte(at.UTC().Format(time.RFC3339Nano)), 0o600); err != nil {
		return fmt.Errorf("mark container as started: %w", err)
	}
	return nil
}

func startedAt(dir, id string) time.Time {
	b, err := os.ReadFile(startedPath(dir, id))
	if err != nil {
		return time.Time{}
	}
	at, err := time.Parse(time.RFC3339Nano, string(b))
	if err != nil {
		return time.Unix(0, 0) // started, but when is lost
	}
	return at
}

func forgetExit(dir, id string) error {
	return errors.Join(removeFile(exitPath(dir, id)), removeFile(startedPath(dir, id)))
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
