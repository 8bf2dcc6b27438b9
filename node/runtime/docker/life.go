package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strconv"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"

	"appliance/node/runtime"
)

// Start runs the process and begins to copy its output.
func (r *Runtime) Start(ctx context.Context, id string) error {
	spec, st, err := r.inspect(ctx, id)
	if err != nil {
		return err
	}
	switch st.State {
	case runtime.StateRunning:
		return nil
	case runtime.StateExited:
		return &runtime.Error{Kind: runtime.ErrConflict, What: "start container " + id,
			Why: fmt.Errorf("it has already run (%s)", st.Exit), Do: "containers are replaced, not restarted"}
	}
	callCtx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := r.api.ContainerStart(callCtx, id, container.StartOptions{}); err != nil {
		return startError(err, id)
	}
	r.copyLogs(id, spec.LogDir)
	return nil
}

// Wait returns when the process has exited and its output is on disk.
func (r *Runtime) Wait(ctx context.Context, id string) (runtime.Exit, error) {
	for {
		// Registered before the state is read, so that no exit slips between.
		waitCtx, cancel := context.WithCancel(ctx)
		exited, failed := r.api.ContainerWait(waitCtx, id, container.WaitConditionNextExit)
		spec, st, err := r.inspect(ctx, id)
		if err != nil || st.State == runtime.StateExited {
			cancel()
			select { // the client's goroutine hangs until one is taken
			case <-exited:
			case <-failed:
			}
			if err == nil {
				st = r.lateOOM(ctx, spec, st)
				err = r.logsCopied(ctx, id)
			}
			return st.Exit, err
		}
		select {
		case <-exited:
		case err = <-failed:
		}
		cancel()
		if ctx.Err() != nil {
			return runtime.Exit{}, ctx.Err()
		}
		if err != nil && !errdefs.IsNotFound(err) {
			return runtime.Exit{}, wrap(err, "wait for container %s", id)
		}
	}
}

// oomWait is how long after an exit the engine may still learn that memory was its cause: the two come to
// it as separate events, on a busy machine in any order.
const oomWait = 500 * time.Millisecond

// lateOOM looks again at a container with a memory limit that was killed for no known cause.
func (r *Runtime) lateOOM(ctx context.Context, spec runtime.ContainerSpec, st runtime.Status) runtime.Status {
	const killed = 128 + int(syscall.SIGKILL)
	for end := time.Now().Add(oomWait); spec.Resources.MemoryBytes > 0 && st.Exit.Code == killed && !st.Exit.OOM && time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return st
		case <-time.After(50 * time.Millisecond):
		}
		if _, again, err := r.inspect(ctx, st.ID); err == nil && again.State == runtime.StateExited {
			st = again
		}
	}
	return st
}

// Stop leaves the sequence to the engine.
func (r *Runtime) Stop(ctx context.Context, id string, grace time.Duration) error {
	spec, st, err := r.inspect(ctx, id)
	if err != nil || st.State != runtime.StateRunning {
		return err
	}
	// The engine counts whole seconds and takes 0 for "kill": we wait for
	// the part below a second ourselves.
	sig := ""
	if spec.StopSignal != 0 {
		sig = strconv.Itoa(int(spec.StopSignal))
	}
	d := spec.Grace(grace)
	if d < time.Second {
		return r.stopShort(ctx, id, sig, d)
	}
	seconds := int((d + time.Second - 1) / time.Second)
	err = r.api.ContainerStop(ctx, id, container.StopOptions{Timeout: &seconds})
	return wrap(err, "stop container %s", id)
}

func (r *Runtime) stopShort(ctx context.Context, id, sig string, grace time.Duration) error {
	if sig == "" {
		c, err := r.api.ContainerInspect(ctx, id)
		if err != nil {
			return wrap(err, "stop container %s", id)
		}
		if sig = c.Config.StopSignal; sig == "" {
			sig = "SIGTERM"
		}
	}
	for _, step := range []struct {
		sig  string
		wait time.Duration
	}{{sig, grace}, {"SIGKILL", callTimeout}} {
		if err := r.kill(ctx, id, step.sig); errors.Is(err, runtime.ErrNotRunning) {
			return nil
		} else if err != nil {
			return err
		}
		waitCtx, cancel := context.WithTimeout(ctx, step.wait)
		_, err := r.Wait(waitCtx, id)
		cancel()
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return runtime.Fail(nil, errors.New("it survived SIGKILL"), "stop container %s", id)
}

// Signal reaches the first process only.
func (r *Runtime) Signal(ctx context.Context, id string, sig runtime.Signal) error {
	return r.kill(ctx, id, strconv.Itoa(int(sig)))
}

func (r *Runtime) kill(ctx context.Context, id, sig string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := r.api.ContainerKill(ctx, id, sig)
	if errdefs.IsConflict(err) { // "is not running"
		return runtime.Fail(runtime.ErrNotRunning, nil, "signal container %s", id)
	}
	return wrap(err, "signal container %s", id)
}

// Remove kills and deletes; anonymous volumes go too.
func (r *Runtime) Remove(ctx context.Context, id string) error {
	if err := runtime.ValidateID(id); err != nil {
		return err
	}
	if _, _, err := r.inspect(ctx, id); errors.Is(err, runtime.ErrNotFound) {
		return nil // also when the name is somebody else's
	} else if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := r.api.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true})
	if errdefs.IsConflict(err) { // "removal is already in progress"
		err = nil
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return wrap(err, "remove container %s", id)
	}
	r.forgetLogs(id)
	return nil
}

// inspect reads one of our containers.
func (r *Runtime) inspect(ctx context.Context, id string) (runtime.ContainerSpec, runtime.Status, error) {
	var spec runtime.ContainerSpec
	if err := runtime.ValidateID(id); err != nil {
		return spec, runtime.Status{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	c, err := r.api.ContainerInspect(ctx, id)
	if err != nil {
		return spec, runtime.Status{}, wrap(err, "container %s", id)
	}
	// The engine also finds by prefix of its own ids, and others' containers.
	if c.Name != "/"+id || c.Config.Labels[labelNode] != r.cfg.Node || json.Unmarshal([]byte(c.Config.Labels[labelSpec]), &spec) != nil {
		return spec, runtime.Status{}, runtime.Fail(runtime.ErrNotFound, nil, "container %s", id)
	}
	return spec, status(spec, c), nil
}

func status(spec runtime.ContainerSpec, c container.InspectResponse) runtime.Status {
	st := runtime.Status{ID: spec.ID, Image: spec.Image, Labels: spec.Labels, Ports: spec.Ports, LogDir: spec.LogDir,
		State: runtime.StateCreated, Created: parseTime(c.Created), Started: parseTime(c.State.StartedAt)}
	switch {
	case c.State.Running: // also paused and restarting
		st.State, st.Pid = runtime.StateRunning, c.State.Pid
	case !st.Started.IsZero() || c.State.Status == "exited" || c.State.Status == "dead":
		at := parseTime(c.State.FinishedAt)
		st.State = runtime.StateExited
		st.Exit = runtime.Exit{Known: !at.IsZero(), Code: c.State.ExitCode, OOM: c.State.OOMKilled, At: at}
	}
	if n := c.NetworkSettings; n != nil {
		for _, e := range n.Networks {
			if e != nil && e.IPAddress != "" {
				st.IP = e.IPAddress
			}
		}
	}
	return st
}

// parseTime reads the engine's times; its "0001-01-01" is Go's zero.
func parseTime(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}
	}
	return t
}

// Inspect returns the container's status.
func (r *Runtime) Inspect(ctx context.Context, id string) (runtime.Status, error) {
	_, st, err := r.inspect(ctx, id)
	return st, err
}

// List inspects each container: the engine's list lacks the exit.
func (r *Runtime) List(ctx context.Context, labels map[string]string) ([]runtime.Status, error) {
	f := filters.NewArgs(filters.Arg("label", labelNode+"="+r.cfg.Node))
	for k, v := range labels {
		f.Add("label", k+"="+v)
	}
	callCtx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	list, err := r.api.ContainerList(callCtx, container.ListOptions{All: true, Filters: f})
	if err != nil {
		return nil, wrap(err, "list containers")
	}
	var out []runtime.Status
	for _, c := range list {
		if len(c.Names) == 0 {
			continue
		}
		_, st, err := r.inspect(ctx, c.Names[0][1:])
		if errors.Is(err, runtime.ErrNotFound) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		out = append(out, st)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].ID < out[j].ID })
	return out, nil
}
