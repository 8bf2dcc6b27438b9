package containerd

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"

	"appliance/node/runtime"
	"appliance/node/runtime/logs"
)

// Start creates the task, which starts the shim, and runs the process.
func (r *Runtime) Start(ctx context.Context, id string) error {
	defer r.locks.lock(id)()
	ctx = r.ctx(ctx)
	c, st, err := r.load(ctx, id)
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
	if st.LogDir != "" {
		if err := logs.Prepare(st.LogDir); err != nil {
			return runtime.Fail(nil, err, "start container %s", id)
		}
	}
	r.setStarting(id, true)
	defer r.wakeWaiters()
	defer r.setStarting(id, false)
	if err := markStarted(r.cfg.exits(), id, time.Now()); err != nil {
		return runtime.Fail(nil, err, "start container %s", id)
	}
	if err := startTask(ctx, c, st.LogDir); err != nil {
		// Not started after all: another Start may succeed.
		return errors.Join(startError(err, id), removeFile(startedPath(r.cfg.exits(), id)))
	}
	return nil
}

func startTask(ctx context.Context, c client.Container, logDir string) error {
	task, err := c.NewTask(ctx, func(string) (cio.IO, error) { return logFiles(logDir), nil })
	if err != nil {
		return err
	}
	if err := task.Start(ctx); err != nil {
		_, derr := task.Delete(context.WithoutCancel(ctx), client.WithProcessKill)
		return errors.Join(err, ignoreNotFound(derr))
	}
	return nil
}

// startError recognises what runc says in words only.
func startError(err error, id string) error {
	msg := err.Error()
	for _, s := range []string{"executable file not found", "no such file or directory", "permission denied", "exec format error", "no command specified"} {
		if strings.Contains(msg, s) && (strings.Contains(msg, "exec") || strings.Contains(msg, "args")) {
			return runtime.Fail(runtime.ErrCommand, err, "start container %s", id)
		}
	}
	return wrap(err, "start container %s", id)
}

// logFiles hands the shim plain paths, which it opens for appending itself:
// output needs neither this process nor a pipe that could fill.
type logFiles string

func (l logFiles) Config() cio.Config {
	if l == "" {
		return cio.Config{}
	}
	return cio.Config{Stdout: string(l) + "/" + logs.Stdout, Stderr: string(l) + "/" + logs.Stderr}
}
func (logFiles) Cancel()      {}
func (logFiles) Wait()        {}
func (logFiles) Close() error { return nil }

func (r *Runtime) wakeWaiters() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.started)
	r.started = make(chan struct{})
}

// Wait returns when the process has exited and its output is on disk. It
// frees the shim, which would else idle until Remove.
func (r *Runtime) Wait(ctx context.Context, id string) (runtime.Exit, error) {
	nsctx := r.ctx(ctx)
	for {
		r.mu.Lock()
		started := r.started
		r.mu.Unlock()
		_, st, err := r.load(nsctx, id)
		if err != nil {
			return runtime.Exit{}, err
		}
		switch st.State {
		case runtime.StateExited:
			return r.reap(nsctx, id)
		case runtime.StateCreated:
			select {
			case <-ctx.Done():
				return runtime.Exit{}, ctx.Err()
			case <-started:
			}
		case runtime.StateRunning:
			if err := r.waitTask(nsctx, id); err != nil {
				return runtime.Exit{}, err
			}
		}
	}
}

// waitTask blocks until the running task has stopped or is gone.
func (r *Runtime) waitTask(ctx context.Context, id string) error {
	task, err := r.task(ctx, id)
	if errors.Is(err, runtime.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	ch, err := task.Wait(ctx)
	if err != nil {
		return wrap(err, "wait for container %s", id)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case st := <-ch:
		if err := st.Error(); err != nil && !errdefs.IsNotFound(err) && ctx.Err() == nil {
			r.cfg.Log.Warn("container's shim is gone", "container", id, "err", err)
			// The engine needs a moment to notice and clean up.
			return sleep(ctx, 100*time.Millisecond)
		}
		return ctx.Err()
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// reap records the exit of a stopped task and deletes the task, which waits
// for the last output and ends the shim.
func (r *Runtime) reap(ctx context.Context, id string) (runtime.Exit, error) {
	defer r.locks.lock(id)()
	_, st, err := r.load(ctx, id)
	if err != nil || st.State != runtime.StateExited {
		return st.Exit, err
	}
	if !st.Exit.Known {
		return st.Exit, r.settle(ctx, id)
	}
	if err := writeExit(r.cfg.exits(), id, st.Exit); err != nil {
		return st.Exit, runtime.Fail(nil, err, "record exit of container %s", id)
	}
	if task, err := r.task(ctx, id); err == nil {
		if _, err := task.Delete(ctx); ignoreNotFound(err) != nil {
			r.cfg.Log.Warn("task of an exited container remains", "container", id, "err", err)
		}
	}
	return st.Exit, nil
}

func (r *Runtime) task(ctx context.Context, id string) (client.Task, error) {
	c, err := r.client.LoadContainer(ctx, id)
	if err != nil {
		return nil, wrap(err, "container %s", id)
	}
	task, err := c.Task(ctx, nil)
	return task, wrap(err, "task of container %s", id)
}

// running is the task of a running container, else ErrNotRunning.
func (r *Runtime) running(ctx context.Context, id string) (client.Container, client.Task, error) {
	c, st, err := r.load(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	notRunning := func() error { return runtime.Fail(runtime.ErrNotRunning, nil, "container %s", id) }
	if st.State != runtime.StateRunning {
		return nil, nil, notRunning()
	}
	task, err := c.Task(ctx, nil)
	if errdefs.IsNotFound(err) {
		return nil, nil, notRunning()
	}
	return c, task, wrap(err, "container %s", id)
}

// Signal reaches the first process only.
func (r *Runtime) Signal(ctx context.Context, id string, sig runtime.Signal) error {
	ctx = r.ctx(ctx)
	_, task, err := r.running(ctx, id)
	if err != nil {
		return err
	}
	err = task.Kill(ctx, sig)
	if errdefs.IsNotFound(err) {
		return runtime.Fail(runtime.ErrNotRunning, nil, "signal container %s", id)
	}
	return wrap(err, "signal container %s", id)
}

// Stop signals, waits for grace, and kills.
func (r *Runtime) Stop(ctx context.Context, id string, grace time.Duration) error {
	info, err := r.client.ContainerService().Get(r.ctx(ctx), id)
	if err != nil {
		return wrap(err, "stop container %s", id)
	}
	spec, err := specOf(info)
	if err != nil {
		return err
	}
	sig := syscall.SIGTERM
	if n, err := strconv.Atoi(info.Labels[labelStop]); err == nil && n > 0 {
		sig = syscall.Signal(n)
	}
	for _, step := range []struct {
		sig  syscall.Signal
		wait time.Duration
	}{{sig, spec.Grace(grace)}, {syscall.SIGKILL, killTimeout}} {
		if err := r.Signal(ctx, id, step.sig); errors.Is(err, runtime.ErrNotRunning) {
			return nil
		} else if err != nil {
			return err
		}
		stepCtx, cancel := context.WithTimeout(ctx, step.wait)
		_, err := r.Wait(stepCtx, id)
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return &runtime.Error{What: "stop container " + id, Why: fmt.Errorf("it survived SIGKILL for %s", killTimeout),
		Do: "a process in uninterruptible sleep waits for a disk or network file system: check the node's volumes"}
}

// killTimeout is how long SIGKILL may take: only the kernel can delay it.
const killTimeout = 30 * time.Second

// Remove kills what runs and deletes everything but the logs.
func (r *Runtime) Remove(ctx context.Context, id string) error {
	if err := runtime.ValidateID(id); err != nil {
		return err
	}
	defer r.locks.lock(id)()
	ctx = r.ctx(ctx)
	task, err := r.task(ctx, id)
	if err != nil && !errors.Is(err, runtime.ErrNotFound) {
		return err
	}
	if err == nil {
		killCtx, cancel := context.WithTimeout(ctx, killTimeout)
		_, err := task.Delete(killCtx, client.WithProcessKill)
		cancel()
		if ignoreNotFound(err) != nil {
			return wrap(err, "remove container %s", id)
		}
	}
	if err := r.settle(ctx, id); err != nil {
		return runtime.Fail(nil, err, "remove container %s", id)
	}
	if err := r.discard(ctx, id); err != nil {
		return runtime.Fail(nil, err, "remove container %s", id)
	}
	r.wakeWaiters()
	return nil
}
