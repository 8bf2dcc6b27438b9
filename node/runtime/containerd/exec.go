package containerd

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"appliance/node/runtime"
)

var execCount atomic.Uint64

// Exec runs a process with the container's identity, limits and filter.
func (r *Runtime) Exec(ctx context.Context, id string, spec runtime.ExecSpec) (int, error) {
	if len(spec.Args) == 0 {
		return 0, runtime.Fail(runtime.ErrInvalid, nil, "exec in container %s: no command", id)
	}
	nsctx := r.ctx(ctx)
	c, task, err := r.running(nsctx, id)
	if err != nil {
		return 0, err
	}
	proc, err := r.execProcess(nsctx, c, spec)
	if err != nil {
		return 0, err
	}
	// Unique across restarts of this process too: the shim remembers names.
	name := fmt.Sprintf("x%x-%d", time.Now().UnixNano(), execCount.Add(1))
	stdin := newStdin(spec.Stdin)
	p, err := task.Exec(nsctx, name, proc, cio.NewCreator(r.streams(spec, stdin)...))
	if err != nil {
		return 0, wrap(err, "exec in container %s", id)
	}
	cleanup := context.WithoutCancel(nsctx)
	defer func() { _, _ = p.Delete(cleanup, client.WithProcessKill) }() // gone with the container at the latest
	exited, err := p.Wait(cleanup)
	if err != nil {
		return 0, wrap(err, "exec in container %s", id)
	}
	if err := p.Start(nsctx); err != nil {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		return 0, startError(err, id)
	}
	defer stdin.onEOF(func() { _ = p.CloseIO(cleanup, client.WithStdinCloser) })() // ended already
	if spec.Resize != nil {
		resizeCtx, stop := context.WithCancel(nsctx)
		defer stop()
		go resize(resizeCtx, p, spec.Resize)
	}
	return waitExec(ctx, cleanup, p, exited)
}

func waitExec(ctx, cleanup context.Context, p client.Process, exited <-chan client.ExitStatus) (int, error) {
	var st client.ExitStatus
	select {
	case st = <-exited:
	case <-ctx.Done():
		_ = p.Kill(cleanup, syscall.SIGKILL) // it may have ended by itself
		<-exited
		return 0, ctx.Err()
	}
	if err := st.Error(); err != nil {
		return 0, runtime.Fail(nil, err, "exec")
	}
	p.IO().Wait() // all output has been written
	return int(st.ExitCode()), nil
}

func (r *Runtime) execProcess(ctx context.Context, c client.Container, spec runtime.ExecSpec) (*specs.Process, error) {
	s, err := c.Spec(ctx)
	if err != nil {
		return nil, wrap(err, "exec in container %s", c.ID())
	}
	if spec.User != "" {
		info, err := c.Info(ctx)
		if err != nil {
			return nil, wrap(err, "exec in container %s", c.ID())
		}
		if err := oci.WithUser(spec.User)(ctx, r.client, &info, s); err != nil {
			return nil, runtime.Fail(runtime.ErrInvalid, err, "exec in container %s as %s", c.ID(), spec.User)
		}
	}
	if err := oci.WithEnv(spec.Env)(ctx, r.client, nil, s); err != nil {
		return nil, err
	}
	p := s.Process
	p.Args, p.Terminal = spec.Args, spec.TTY
	if spec.WorkDir != "" {
		p.Cwd = spec.WorkDir
	}
	return p, nil
}

// stdin notices the end of the input: the shim holds the other end of the
// pipe open and must be told.
type stdin struct {
	io.Reader
	eof  chan struct{}
	once sync.Once
}

func newStdin(r io.Reader) *stdin { return &stdin{Reader: r, eof: make(chan struct{})} }

func (s *stdin) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil {
		s.once.Do(func() { close(s.eof) })
	}
	return n, err
}

// onEOF calls f at the end of the input; the result ends the waiting.
func (s *stdin) onEOF(f func()) (stop func()) {
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		select {
		case <-s.eof:
			f()
		case <-done:
		}
	}()
	return func() {
		close(done)
		<-stopped
	}
}

func (r *Runtime) streams(spec runtime.ExecSpec, in *stdin) []cio.Opt {
	out, errw := spec.Stdout, spec.Stderr
	if out == nil {
		out = io.Discard
	}
	if errw == nil {
		errw = io.Discard
	}
	var reader io.Reader // a nil interface means no input
	if spec.Stdin != nil {
		reader = in
	}
	opts := []cio.Opt{cio.WithStreams(reader, out, errw), cio.WithFIFODir(r.cfg.fifos())}
	if spec.TTY {
		opts = append(opts, cio.WithTerminal)
	}
	return opts
}

func resize(ctx context.Context, p client.Process, sizes <-chan runtime.WindowSize) {
	for {
		select {
		case <-ctx.Done():
			return
		case s, ok := <-sizes:
			if !ok {
				return
			}
			_ = p.Resize(ctx, uint32(s.Width), uint32(s.Height)) // cosmetic
		}
	}
}
