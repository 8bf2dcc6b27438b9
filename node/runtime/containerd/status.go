package containerd

import (
	"context"
	"path/filepath"
	"sort"
	"strings"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/errdefs"

	"appliance/node/runtime"
)

// load finds a container and works out where it stands.
func (r *Runtime) load(ctx context.Context, id string) (client.Container, runtime.Status, error) {
	c, err := r.client.LoadContainer(ctx, id)
	if err != nil {
		return nil, runtime.Status{}, wrap(err, "container %s", id)
	}
	info, err := c.Info(ctx, client.WithoutRefreshedMetadata)
	if err != nil {
		return nil, runtime.Status{}, wrap(err, "container %s", id)
	}
	st, err := r.status(ctx, c, info)
	return c, st, err
}

// Inspect returns the container's status.
func (r *Runtime) Inspect(ctx context.Context, id string) (runtime.Status, error) {
	_, st, err := r.load(r.ctx(ctx), id)
	return st, err
}

// List filters by labels; containers in our namespace that we did not make
// are not shown.
func (r *Runtime) List(ctx context.Context, labels map[string]string) ([]runtime.Status, error) {
	ctx = r.ctx(ctx)
	list, err := r.client.Containers(ctx)
	if err != nil {
		return nil, wrap(err, "list containers")
	}
	var out []runtime.Status
	for _, c := range list {
		info, err := c.Info(ctx, client.WithoutRefreshedMetadata)
		if err != nil {
			return nil, wrap(err, "list containers")
		}
		spec, err := specOf(info)
		if err != nil || !matches(spec.Labels, labels) {
			continue
		}
		st, err := r.status(ctx, c, info)
		if err != nil {
			return nil, err
		}
		out = append(out, st)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].ID < out[j].ID })
	return out, nil
}

func matches(have, want map[string]string) bool {
	for k, v := range want {
		if h, ok := have[k]; !ok || h != v {
			return false
		}
	}
	return true
}

func (r *Runtime) status(ctx context.Context, c client.Container, info containers.Container) (runtime.Status, error) {
	spec, err := specOf(info)
	if err != nil {
		return runtime.Status{}, err
	}
	att, _ := r.net.Lookup(spec.ID)
	st := runtime.Status{ID: spec.ID, Image: spec.Image, Labels: spec.Labels, Ports: spec.Ports, LogDir: spec.LogDir,
		IP: att.IP, Created: info.CreatedAt, Started: startedAt(r.cfg.exits(), spec.ID)}
	if exit, ok := readExit(r.cfg.exits(), spec.ID); ok {
		st.State, st.Exit = runtime.StateExited, exit
		return st, nil
	}
	if r.rebooted(info.Labels) {
		st.State = runtime.StateExited
		return st, nil
	}
	// The marker was read before this; a Start in between shows in one of them.
	if r.isStarting(spec.ID) {
		st.State = runtime.StateCreated
		return st, nil
	}
	err = r.taskStatus(ctx, c, &st)
	return st, err
}

// rebooted says whether a container is from before a reboot, which ended it.
// A machine that is itself a container starts anew under the same kernel: its
// run directory is all that tells. Records of older releases name none.
func (r *Runtime) rebooted(labels map[string]string) bool {
	run, named := labels[labelRun]
	return labels[labelBoot] != r.bootID || named && run != r.runID
}

func (r *Runtime) isStarting(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.starting[id]
}

func (r *Runtime) setStarting(id string, on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if on {
		r.starting[id] = true
	} else {
		delete(r.starting, id)
	}
}

func (r *Runtime) taskStatus(ctx context.Context, c client.Container, st *runtime.Status) error {
	task, err := c.Task(ctx, nil)
	if err == nil {
		var s client.Status
		if s, err = task.Status(ctx); err == nil {
			r.fromTask(task, s, st)
			return nil
		}
	}
	if !errdefs.IsNotFound(err) && !shimGone(err) {
		return wrap(err, "container %s", st.ID)
	}
	if exit, ok := readExit(r.cfg.exits(), st.ID); ok { // it ended just now
		st.State, st.Exit = runtime.StateExited, exit
		return nil
	}
	st.State = runtime.StateCreated
	if !st.Started.IsZero() && !startedAt(r.cfg.exits(), st.ID).IsZero() {
		st.State = runtime.StateExited // nobody saw how
	}
	return nil
}

func (r *Runtime) fromTask(task client.Task, s client.Status, st *runtime.Status) {
	switch s.Status {
	case client.Created, client.Unknown:
		st.State = runtime.StateCreated
	case client.Stopped:
		st.State = runtime.StateExited
		st.Exit = runtime.Exit{Known: true, Code: int(s.ExitStatus), At: s.ExitTime,
			OOM: oomKilled(filepath.Join(r.cfg.cgroup(), st.ID))}
	default:
		st.State, st.Pid = runtime.StateRunning, int(task.Pid())
	}
}

// shimGone recognises the error of a call to a shim that has died.
func shimGone(err error) bool {
	return strings.Contains(err.Error(), "ttrpc: closed") || strings.Contains(err.Error(), "connection refused")
}
