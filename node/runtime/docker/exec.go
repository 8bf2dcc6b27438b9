package docker

import (
	"context"
	"errors"
	"io"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"

	"appliance/node/runtime"
)

// Exec runs one more process.
func (r *Runtime) Exec(ctx context.Context, id string, spec runtime.ExecSpec) (int, error) {
	if len(spec.Args) == 0 {
		return 0, runtime.Fail(runtime.ErrInvalid, nil, "exec in container %s: no command", id)
	}
	if _, st, err := r.inspect(ctx, id); err != nil {
		return 0, err
	} else if st.State != runtime.StateRunning {
		return 0, runtime.Fail(runtime.ErrNotRunning, nil, "exec in container %s", id)
	}
	created, err := r.api.ContainerExecCreate(ctx, id, container.ExecOptions{Cmd: spec.Args, Env: spec.Env, WorkingDir: spec.WorkDir,
		User: spec.User, Tty: spec.TTY, AttachStdin: spec.Stdin != nil, AttachStdout: true, AttachStderr: true})
	if err != nil {
		if errdefs.IsConflict(err) {
			return 0, runtime.Fail(runtime.ErrNotRunning, nil, "exec in container %s", id)
		}
		return 0, wrap(err, "exec in container %s", id)
	}
	conn, err := r.api.ContainerExecAttach(ctx, created.ID, container.ExecAttachOptions{Tty: spec.TTY})
	if err != nil {
		return 0, wrap(err, "exec in container %s", id)
	}
	defer conn.Close()
	if err := r.pump(ctx, created.ID, conn, spec); err != nil {
		return 0, wrap(err, "exec in container %s", id)
	}
	end, err := r.api.ContainerExecInspect(ctx, created.ID)
	if err != nil {
		return 0, wrap(err, "exec in container %s", id)
	}
	return end.ExitCode, nil
}

// pump moves bytes until the process has closed its output.
func (r *Runtime) pump(ctx context.Context, exec string, conn types.HijackedResponse, spec runtime.ExecSpec) error {
	if spec.Stdin != nil {
		// Ends with the input or, by the closed connection, with the process;
		// a reader that never returns is the caller's to close.
		go func() {
			_, _ = io.Copy(conn.Conn, spec.Stdin)
			_ = conn.CloseWrite()
		}()
	}
	if spec.Resize != nil {
		resizeCtx, stop := context.WithCancel(ctx)
		defer stop()
		go r.resize(resizeCtx, exec, spec.Resize)
	}
	copied := make(chan error, 1)
	go func() { copied <- output(conn.Reader, spec) }()
	select {
	case err := <-copied:
		return err
	case <-ctx.Done():
		r.killExec(exec)
		conn.Close()
		<-copied
		return ctx.Err()
	}
}

func output(from io.Reader, spec runtime.ExecSpec) error {
	out, errw := orDiscard(spec.Stdout), orDiscard(spec.Stderr)
	if spec.TTY {
		_, err := io.Copy(out, from)
		return err
	}
	return eachFrame(from, func(stream byte, data []byte) error {
		w := out
		if stream == streamErr {
			w = errw
		}
		_, err := w.Write(data)
		return err
	})
}

// killExec ends a process by the number the engine tells: its API cannot.
func (r *Runtime) killExec(exec string) {
	ctx, cancel := context.WithTimeout(context.Background(), pingTimeout)
	defer cancel()
	st, err := r.api.ContainerExecInspect(ctx, exec)
	if err != nil || !st.Running || st.Pid <= 0 || !r.local() {
		return
	}
	if err := syscall.Kill(st.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		r.cfg.Log.Warn("a cancelled exec goes on", "container", st.ContainerID, "pid", st.Pid, "err", err)
	}
}

func (r *Runtime) resize(ctx context.Context, exec string, sizes <-chan runtime.WindowSize) {
	for {
		select {
		case <-ctx.Done():
			return
		case s, ok := <-sizes:
			if !ok {
				return
			}
			_ = r.api.ContainerExecResize(ctx, exec, container.ResizeOptions{Width: uint(s.Width), Height: uint(s.Height)}) // cosmetic
		}
	}
}

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}
