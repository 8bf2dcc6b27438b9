package fake

import (
	"context"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"appliance/node/runtime"
)

func (r *Runtime) get(id string) (*container, error) {
	r.e.mu.Lock()
	defer r.e.mu.Unlock()
	return r.getLocked(id)
}

func (r *Runtime) getLocked(id string) (*container, error) {
	c, ok := r.e.containers[id]
	if !ok {
		return nil, runtime.Fail(runtime.ErrNotFound, nil, "container %s", id)
	}
	return c, nil
}

func (r *Runtime) running(id string) (*container, error) {
	c, err := r.getLocked(id)
	if err == nil && c.state != runtime.StateRunning {
		return nil, runtime.Fail(runtime.ErrNotRunning, nil, "container %s", id)
	}
	return c, err
}

// Start runs the image's program.
func (r *Runtime) Start(ctx context.Context, id string) error {
	if err := r.failing("Start"); err != nil {
		return err
	}
	e := r.e
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := r.getLocked(id)
	if err != nil || c.state == runtime.StateRunning {
		return err
	}
	if c.state == runtime.StateExited {
		return runtime.Fail(runtime.ErrConflict, nil, "start container %s: it has already exited", id)
	}
	program := e.programs[canonical(c.spec.Image)]
	if program == nil {
		program = UntilTerm
	}
	out, errw, err := c.openLogs()
	if err != nil {
		return err
	}
	c.state, c.started = runtime.StateRunning, time.Now()
	c.procs.Add(1)
	go func() {
		defer c.procs.Done()
		code := program(c.ctx, &Proc{Spec: c.spec, Args: append(slices.Clone(c.spec.Entrypoint), c.spec.Args...),
			Env: c.spec.Env, Stdin: strings.NewReader(""), Stdout: out, Stderr: errw, Signals: c.signals})
		out.Close()
		errw.Close()
		e.mu.Lock()
		defer e.mu.Unlock()
		e.endLocked(c, runtime.Exit{Known: true, Code: code})
	}()
	e.publishLocked(runtime.EventStart, id)
	return nil
}

// Wait blocks until the container has exited.
func (r *Runtime) Wait(ctx context.Context, id string) (runtime.Exit, error) {
	c, err := r.get(id)
	if err != nil {
		return runtime.Exit{}, err
	}
	select {
	case <-ctx.Done():
		return runtime.Exit{}, ctx.Err()
	case <-c.exited:
		r.e.mu.Lock()
		defer r.e.mu.Unlock()
		return c.exit, nil
	}
}

// Stop signals, waits and kills.
func (r *Runtime) Stop(ctx context.Context, id string, grace time.Duration) error {
	if err := r.failing("Stop"); err != nil {
		return err
	}
	c, err := r.get(id)
	if err != nil {
		return err
	}
	sig := c.spec.StopSignal
	if sig == 0 {
		sig = 15
	}
	if err := r.Signal(ctx, id, sig); err != nil {
		return nil // not running any more
	}
	select {
	case <-c.exited:
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(c.spec.Grace(grace)):
		r.e.end(id, runtime.Exit{Known: true, Code: 137})
	}
	return nil
}

// Signal delivers to the program; SIGKILL ends the container.
func (r *Runtime) Signal(ctx context.Context, id string, sig runtime.Signal) error {
	r.e.mu.Lock()
	defer r.e.mu.Unlock()
	c, err := r.running(id)
	if err != nil {
		return err
	}
	if sig == 9 {
		r.e.endLocked(c, runtime.Exit{Known: true, Code: 137})
		return nil
	}
	select {
	case c.signals <- sig:
	default: // as the kernel: a pending signal is not queued twice
	}
	return nil
}

// Remove forgets the container.
func (r *Runtime) Remove(ctx context.Context, id string) error {
	if err := r.failing("Remove"); err != nil {
		return err
	}
	r.e.mu.Lock()
	defer r.e.mu.Unlock()
	c, ok := r.e.containers[id]
	if !ok {
		return nil
	}
	r.e.endLocked(c, runtime.Exit{Known: true, Code: 137})
	c.cancel()
	delete(r.e.containers, id)
	maps.DeleteFunc(r.e.ports, func(_ runtime.PortMapping, owner string) bool { return owner == id })
	return nil
}

// Inspect returns the container's status.
func (r *Runtime) Inspect(ctx context.Context, id string) (runtime.Status, error) {
	r.e.mu.Lock()
	defer r.e.mu.Unlock()
	c, err := r.getLocked(id)
	if err != nil {
		return runtime.Status{}, err
	}
	return c.status(), nil
}

func (c *container) status() runtime.Status {
	st := runtime.Status{ID: c.spec.ID, Image: c.spec.Image, Labels: maps.Clone(c.spec.Labels), State: c.state, Exit: c.exit,
		Ports: c.spec.Ports, LogDir: c.spec.LogDir, Created: c.created, Started: c.started}
	if c.spec.Network == runtime.NetworkBridge {
		st.IP = "127.0.0.1"
	}
	return st
}

// List filters by labels.
func (r *Runtime) List(ctx context.Context, labels map[string]string) ([]runtime.Status, error) {
	if err := r.failing("List"); err != nil {
		return nil, err
	}
	r.e.mu.Lock()
	defer r.e.mu.Unlock()
	var out []runtime.Status
	for _, id := range slices.Sorted(maps.Keys(r.e.containers)) {
		c := r.e.containers[id]
		match := true
		for k, v := range labels {
			match = match && c.spec.Labels[k] == v
		}
		if match {
			out = append(out, c.status())
		}
	}
	return out, nil
}

// Update changes the limits that Stats reports.
func (r *Runtime) Update(ctx context.Context, id string, res runtime.Resources) error {
	r.e.mu.Lock()
	defer r.e.mu.Unlock()
	c, err := r.running(id)
	if err == nil {
		c.limits = res
	}
	return err
}

// Stats invents one millisecond of CPU per call and 1 MB.
func (r *Runtime) Stats(ctx context.Context, id string) (runtime.Stats, error) {
	r.e.mu.Lock()
	defer r.e.mu.Unlock()
	c, err := r.running(id)
	if err != nil {
		return runtime.Stats{}, err
	}
	return runtime.Stats{At: time.Now(), CPU: time.Since(c.started) / 100, MemoryBytes: 1 << 20,
		MemoryLimit: uint64(c.limits.MemoryBytes), Pids: 1}, nil
}

// Exec runs the image's program once more with the given arguments.
func (r *Runtime) Exec(ctx context.Context, id string, spec runtime.ExecSpec) (int, error) {
	r.e.mu.Lock()
	c, err := r.running(id)
	if err != nil {
		r.e.mu.Unlock()
		return 0, err
	}
	program := r.e.programs[canonical(c.spec.Image)]
	r.e.mu.Unlock()
	if program == nil {
		return 0, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	p := &Proc{Spec: c.spec, Args: spec.Args, Env: append(slices.Clone(c.spec.Env), spec.Env...),
		Stdin: orEmpty(spec.Stdin), Stdout: orDiscard(spec.Stdout), Stderr: orDiscard(spec.Stderr)}
	code := program(ctx, p)
	return code, ctx.Err()
}

func orEmpty(r io.Reader) io.Reader {
	if r == nil {
		return strings.NewReader("")
	}
	return r
}

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

// Events subscribes with a small buffer.
func (r *Runtime) Events(ctx context.Context) (<-chan runtime.Event, error) {
	ch, out := make(chan runtime.Event, 64), make(chan runtime.Event)
	r.e.mu.Lock()
	r.e.subs[ch] = struct{}{}
	r.e.mu.Unlock()
	go func() {
		defer close(out)
		defer func() {
			r.e.mu.Lock()
			delete(r.e.subs, ch)
			r.e.mu.Unlock()
		}()
		for {
			select {
			case <-ctx.Done():
				return
			case ev := <-ch:
				select {
				case out <- ev:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return out, nil
}
