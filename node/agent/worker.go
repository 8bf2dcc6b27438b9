package agent

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"appliance/node/model"
	"appliance/node/runtime"
	"appliance/raft/state"
)

// worker owns one task on this node: it alone creates, watches and removes
// the task's container and writes its status.
type worker struct {
	a    *Agent
	task model.Task
	spec model.AppSpec
	eng  engine
	log  *slog.Logger

	saving chan struct{} // holds a value while the status changes: that lasts until it is on disk
	status model.TaskStatus

	stopOnce sync.Once
	stopped  chan struct{}
	stopWhy  string
	failWhy  string // set when we end the task because it fails its checks
}

// engine runs what a task is: a container, or a plain process for tasks of
// external frameworks that name no image.
type engine interface {
	// start brings the task up; it may be repeated after a crash.
	start(ctx context.Context) error
	wait(ctx context.Context) (runtime.Exit, error)
	// ip is the address of the task's own network, if it has one.
	ip(ctx context.Context) string
	exec(ctx context.Context, args []string) (int, error)
	stop(ctx context.Context, grace time.Duration) error
	remove(ctx context.Context) error
}

func newWorker(a *Agent, t model.Task, spec model.AppSpec, cp *checkpoint) *worker {
	w := &worker{a: a, task: t, spec: spec, status: t.Status, stopped: make(chan struct{}), saving: make(chan struct{}, 1),
		log: a.cfg.Log.With("task", t.ID)}
	if cp != nil {
		w.status = cp.Status
	}
	w.status.Task, w.status.Node = t.ID, a.cfg.Node
	if t.Foreign != nil && t.Foreign.Image == "" {
		w.eng = newProcess(a.cfg, t, spec)
	} else {
		w.eng = &container{cfg: a.cfg, task: t, spec: spec}
	}
	return w
}

// stop asks the worker to end its task; the first reason counts.
func (w *worker) stop(why string) {
	w.stopOnce.Do(func() {
		w.stopWhy = why
		close(w.stopped)
	})
}

// run moves the task to its end, or until ctx ends: then the task goes on
// without us and the next agent's worker takes it up.
func (w *worker) run(ctx context.Context) {
	if w.status.State.Rank() < model.TaskRunning.Rank() {
		if !w.bringUp(ctx) {
			return
		}
	}
	var again restarts
	exit, err := w.supervise(ctx)
	for ctx.Err() == nil && w.standIn(ctx, &again) {
		exit, err = w.supervise(ctx)
	}
	if ctx.Err() != nil {
		return
	}
	clean, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if rmErr := w.eng.remove(clean); rmErr != nil {
		w.log.Warn("cannot remove container, a later start will", "err", rmErr)
	}
	w.end(exit, err)
}

// startTries bounds how often a start is repeated when the cause may pass by
// itself, such as a registry without its leader.
const (
	startTries = 5
	startPause = 300 * time.Millisecond
)

// bringUp prepares and starts; false means that the worker is finished.
func (w *worker) bringUp(ctx context.Context) bool {
	w.set(func(st *model.TaskStatus) { st.State = model.TaskStarting })
	starting, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // a stop interrupts a long pull
		select {
		case <-w.stopped:
			cancel()
		case <-starting.Done():
		}
	}()
	var err error
	for try := range startTries {
		if err = w.eng.start(starting); err == nil || starting.Err() != nil || !passing(err) {
			break
		}
		sleep(starting, startPause<<try)
	}
	switch {
	case ctx.Err() != nil:
		return false
	case starting.Err() != nil:
		w.discard(ctx)
		w.finish(model.TaskKilled, w.stopWhy, nil)
		return false
	case err != nil:
		w.discard(ctx)
		w.finish(failureState(err), err.Error(), nil)
		return false
	}
	w.set(func(st *model.TaskStatus) {
		st.State, st.StartedAt, st.Message = model.TaskRunning, w.a.cfg.Now(), ""
		st.IP = w.eng.ip(ctx)
	})
	return true
}

// passing tells errors that may go away from those that will not.
func passing(err error) bool {
	for _, final := range []error{runtime.ErrInvalid, runtime.ErrImageNotFound, runtime.ErrCommand, runtime.ErrUnsupported, runtime.ErrNoSpace, errArtifact} {
		if errors.Is(err, final) {
			return false
		}
	}
	return true
}

func failureState(err error) model.TaskState {
	if errors.Is(err, runtime.ErrInvalid) || errors.Is(err, runtime.ErrUnsupported) {
		return model.TaskError
	}
	return model.TaskFailed
}

func (w *worker) discard(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := w.eng.remove(ctx); err != nil {
		w.log.Warn("cannot remove container", "err", err)
	}
}

// supervise runs the checks until the task has exited by itself or by our
// stop.
func (w *worker) supervise(ctx context.Context) (runtime.Exit, error) {
	life, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	type outcome struct {
		exit runtime.Exit
		err  error
	}
	ended := make(chan outcome, 1)
	wg.Add(1)
	go func() { defer wg.Done(); exit, err := w.eng.wait(life); ended <- outcome{exit, err} }()
	if len(w.spec.Checks) > 0 {
		p := &prober{addr: w.a.cfg.Addr, task: w.task, checks: w.spec.Checks, exec: w.eng.exec, set: w.setHealth,
			replaceable: w.replaceable,
			giveUp:      func(why string) { w.failWhy = why; w.stop(why) }}
		wg.Add(1)
		go func() { defer wg.Done(); p.run(life) }()
	}
	select {
	case o := <-ended:
		return o.exit, o.err
	case <-ctx.Done():
		return runtime.Exit{}, ctx.Err()
	case <-w.stopped:
	}
	w.set(func(st *model.TaskStatus) { st.State, st.Message = model.TaskKilling, w.stopWhy })
	w.drain(ctx)
	if err := w.eng.stop(ctx, w.grace()); err != nil && !errors.Is(err, runtime.ErrNotFound) {
		w.log.Warn("cannot stop task", "err", err)
	}
	select {
	case o := <-ended:
		return o.exit, o.err
	case <-ctx.Done():
		return runtime.Exit{}, ctx.Err()
	case <-time.After(w.grace() + 10*time.Second):
		return runtime.Exit{}, errors.New("the task did not end after it was killed")
	}
}

// replaceable reports whether a sick task is worth ending. It is not while the
// cluster has not heard how it is, since nobody would replace it; nor when the
// app's other instances are sick too, since then the cause is likely outside:
// a volume or a database that is away. They all come back when it does.
func (w *worker) replaceable() bool {
	if !w.a.report.heard(w.task.ID) {
		return false
	}
	others, ready := 0, 0
	for t := range state.Tasks.By(w.a.cfg.Store.Snapshot(), "app", w.task.App) {
		if t.ID == w.task.ID || t.Status.State != model.TaskRunning || t.Stop {
			continue
		}
		others++
		if t.Ready(len(w.spec.Checks) > 0) {
			ready++
		}
	}
	return w.task.App == "" || others == 0 || ready > 0
}

// drainDelay is the time between the commit that takes a task out of every
// proxy and its stop signal: several times what a commit needs to reach all
// nodes, so that no request meets a closed port.
const drainDelay = 500 * time.Millisecond

func (w *worker) drain(ctx context.Context) {
	if len(w.task.Ports) > 0 && w.failWhy == "" {
		sleep(ctx, drainDelay)
	}
}

func (w *worker) grace() time.Duration {
	if g := w.spec.KillGrace.D(); g > 0 {
		return g
	}
	return runtime.DefaultGrace
}

func (w *worker) setHealth(healthy bool, why string) {
	w.set(func(st *model.TaskStatus) {
		st.Healthy, st.Message = &healthy, why
		if healthy && st.ReadyAt.IsZero() {
			st.ReadyAt = w.a.cfg.Now()
		}
	})
}

// end turns an exit into the final status.
func (w *worker) end(exit runtime.Exit, err error) {
	state, why := model.TaskFailed, exit.String()
	asked := w.asked()
	switch {
	case asked && w.failWhy != "":
		why = w.failWhy
	case asked:
		state, why = model.TaskKilled, w.stopWhy
	case err != nil:
		state, why = model.TaskLost, fmt.Sprintf("the runtime lost the task: %v", err)
	case !exit.Known:
		state = model.TaskLost
	case exit.Code == 0:
		state = model.TaskFinished
	}
	var code *int
	if exit.Known {
		code = &exit.Code
	}
	w.finish(state, why, code)
}

func (w *worker) finish(state model.TaskState, why string, code *int) {
	w.set(func(st *model.TaskStatus) {
		st.State, st.Message, st.ExitCode, st.Healthy = state, why, code, nil
	})
}

// set changes the status, makes it durable and reports it, in that order: a
// restarted agent never tells less than it has told.
func (w *worker) set(change func(*model.TaskStatus)) {
	w.saving <- struct{}{}
	defer func() { <-w.saving }()
	st := w.status
	change(&st)
	st.Seq, st.At, st.UUID = st.Seq+1, w.a.cfg.Now(), newUUID()
	st.Container = containerID(w.task.ID)
	if st.State != w.status.State || st.State.Terminal() {
		w.log.Info("task", "state", st.State, "why", st.Message)
	}
	w.status = st
	if err := w.a.checks.save(checkpoint{Task: w.task, Spec: w.spec, Status: st}); err != nil {
		w.log.Error("cannot save the task's checkpoint; it may be lost by a restart", "err", err)
	}
	w.a.report.add(st)
}

// newUUID names a status, as Mesos frameworks acknowledge by UUID (RFC 9562,
// version 4), in hex without dashes.
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails since Go 1.24
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return hex.EncodeToString(b[:])
}

// container is the engine for images.
type container struct {
	cfg  Config
	task model.Task
	spec model.AppSpec
}

func (c *container) id() string { return containerID(c.task.ID) }

// pullTimeout bounds one try to pull; layers arrive from the same network.
const pullTimeout = 15 * time.Minute

func (c *container) start(ctx context.Context) error {
	if err := os.MkdirAll(LogDir(c.cfg.Dir, c.task.ID), 0o700); err != nil {
		return err
	}
	mounts, err := c.mounts(ctx)
	if err != nil {
		return err
	}
	if f := c.task.Foreign; f != nil {
		dir := sandboxDir(c.cfg, c.task)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := fetch(ctx, dir, f.URIs); err != nil {
			return err
		}
		mounts = append(mounts, mount{VolumeMount: model.VolumeMount{Path: mesosSandbox}, dir: dir})
	}
	secret, err := c.secretMounts(ctx)
	if err != nil {
		return err
	}
	spec := containerSpec(c.cfg, c.task, c.spec, append(mounts, secret...))
	spec.Wrap = c.wrapped(nil)
	pull, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	if _, err := c.cfg.Runtime.Pull(pull, spec.Image, runtime.PullOptions{}); err != nil {
		return err
	}
	if err := c.cfg.Runtime.Create(ctx, spec); err != nil {
		if !errors.Is(err, runtime.ErrConflict) {
			return err
		}
		// Left by a try before a crash, with other mounts or limits.
		if err := c.cfg.Runtime.Remove(ctx, spec.ID); err != nil {
			return err
		}
		if err := c.cfg.Runtime.Create(ctx, spec); err != nil {
			return err
		}
	}
	st, err := c.cfg.Runtime.Inspect(ctx, spec.ID)
	if err != nil || st.State != runtime.StateCreated {
		return err // it runs already, or has even ended: wait will tell
	}
	return c.cfg.Runtime.Start(ctx, spec.ID)
}

// mesosSandbox is where a foreign task's container finds its artifacts.
const mesosSandbox = "/mnt/mesos/sandbox"

func (c *container) mounts(ctx context.Context) ([]mount, error) {
	var out []mount
	for _, m := range c.spec.Volumes {
		dir := m.HostPath
		if m.Name != "" {
			if c.cfg.Volumes == nil {
				return nil, runtime.Fail(runtime.ErrUnsupported, nil, "mount volume %s", m.Name)
			}
			var err error
			if dir, err = c.cfg.Volumes.Mount(ctx, m.Name); err != nil {
				return nil, err
			}
		}
		out = append(out, mount{VolumeMount: m, dir: dir})
	}
	return out, nil
}

func (c *container) wait(ctx context.Context) (runtime.Exit, error) {
	return c.cfg.Runtime.Wait(ctx, c.id())
}

func (c *container) ip(ctx context.Context) string {
	st, err := c.cfg.Runtime.Inspect(ctx, c.id())
	if err != nil {
		return ""
	}
	return st.IP
}

func (c *container) exec(ctx context.Context, args []string) (int, error) {
	return c.cfg.Runtime.Exec(ctx, c.id(), runtime.ExecSpec{Args: c.wrapped(args)})
}

func (c *container) stop(ctx context.Context, grace time.Duration) error {
	return c.cfg.Runtime.Stop(ctx, c.id(), grace)
}

func (c *container) remove(ctx context.Context) error {
	if err := c.cfg.Runtime.Remove(ctx, c.id()); err != nil {
		return err
	}
	return dropSecrets(c.cfg, c.task.ID)
}
