package docker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"

	"appliance/node/runtime"
	"appliance/node/runtime/logs"
)

// copying is one container's output on its way into the plain files.
type copying struct {
	dir    string
	cancel context.CancelFunc
	done   chan struct{}
}

// cursorFile in the log directory holds the time of the last line copied.
const cursorFile = ".docker-cursor"

// cursorEvery bounds how much output a crash of this process doubles.
const cursorEvery = time.Second

// retryEvery is the pause after the engine broke off a stream.
const retryEvery = time.Second

// resumeLogs takes up what a former driver was copying.
func (r *Runtime) resumeLogs(ctx context.Context) error {
	list, err := r.List(ctx, nil)
	if err != nil {
		return err
	}
	for _, st := range list {
		if st.State != runtime.StateCreated {
			r.copyLogs(st.ID, st.LogDir)
		}
	}
	return nil
}

func (r *Runtime) copyLogs(id, dir string) {
	if dir == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.copies[id] != nil {
		return
	}
	ctx, cancel := context.WithCancel(r.ctx)
	c := &copying{dir: dir, cancel: cancel, done: make(chan struct{})}
	r.copies[id] = c
	r.owned.Go(func() {
		defer close(c.done)
		for failing := false; ; {
			err := r.copyOnce(ctx, id, dir)
			if err == nil || ctx.Err() != nil || errors.Is(err, runtime.ErrNotFound) {
				return
			}
			if !failing {
				r.cfg.Log.Warn("output of a container is not copied", "container", id, "err", err)
				failing = true
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(retryEvery):
			}
		}
	})
}

// copyOnce follows the engine's log until the container has ended.
func (r *Runtime) copyOnce(ctx context.Context, id, dir string) (err error) {
	cur, err := openCursor(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cur.close()) }()
	opts := container.LogsOptions{ShowStdout: true, ShowStderr: true, Follow: true, Timestamps: true}
	if !cur.last.IsZero() {
		opts.Since = cur.last.Format(time.RFC3339Nano)
	}
	rc, err := r.api.ContainerLogs(ctx, id, opts)
	if err != nil {
		return wrap(err, "logs of container %s", id)
	}
	defer rc.Close()
	return eachFrame(rc, func(stream byte, line []byte) error {
		at, text := splitTime(line)
		if !at.IsZero() && !at.After(cur.last) {
			return nil // "since" includes its own instant
		}
		return cur.write(stream, at, text)
	})
}

// cursor appends lines and remembers the last.
type cursor struct {
	path        string
	out, errout *os.File
	last, saved time.Time
	savedAt     time.Time
}

func openCursor(dir string) (*cursor, error) {
	c := &cursor{path: filepath.Join(dir, cursorFile)}
	if b, err := os.ReadFile(c.path); err == nil {
		c.last = parseTime(strings.TrimSpace(string(b)))
		c.saved = c.last
	}
	var err error
	if c.out, err = os.OpenFile(filepath.Join(dir, logs.Stdout), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640); err != nil {
		return nil, err
	}
	if c.errout, err = os.OpenFile(filepath.Join(dir, logs.Stderr), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640); err != nil {
		return nil, errors.Join(err, c.out.Close())
	}
	return c, nil
}

func (c *cursor) write(stream byte, at time.Time, text []byte) error {
	f := c.out
	if stream == streamErr {
		f = c.errout
	}
	if _, err := f.Write(text); err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	if at.After(c.last) {
		c.last = at
	}
	if time.Since(c.savedAt) > cursorEvery {
		return c.save()
	}
	return nil
}

func (c *cursor) save() error {
	if c.last.Equal(c.saved) {
		return nil
	}
	if err := os.WriteFile(c.path+".tmp", []byte(c.last.Format(time.RFC3339Nano)), 0o640); err != nil {
		return fmt.Errorf("remember place in log: %w", err)
	}
	c.saved, c.savedAt = c.last, time.Now()
	return os.Rename(c.path+".tmp", c.path)
}

func (c *cursor) close() error {
	return errors.Join(c.save(), c.out.Close(), c.errout.Close())
}

// copyTimeout bounds how long an exit waits for its last output.
const copyTimeout = 10 * time.Second

func (r *Runtime) logsCopied(ctx context.Context, id string) error {
	r.mu.Lock()
	c := r.copies[id]
	r.mu.Unlock()
	if c == nil {
		return nil
	}
	t := time.NewTimer(copyTimeout)
	defer t.Stop()
	select {
	case <-c.done:
	case <-t.C:
		r.cfg.Log.Warn("output of an exited container is still being copied", "container", id)
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

func (r *Runtime) forgetLogs(id string) {
	r.mu.Lock()
	c := r.copies[id]
	delete(r.copies, id)
	r.mu.Unlock()
	if c != nil {
		c.cancel()
		<-c.done
		_ = os.Remove(filepath.Join(c.dir, cursorFile)) // the directory is the caller's
	}
}

func (r *Runtime) logDirs() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var dirs []string
	for _, c := range r.copies {
		dirs = append(dirs, c.dir)
	}
	return dirs
}

// Logs reads the plain files.
func (r *Runtime) Logs(ctx context.Context, id string, opts runtime.LogOptions) error {
	_, st, err := r.inspect(ctx, id)
	if err != nil || st.LogDir == "" {
		return err
	}
	if !opts.Follow {
		return logs.Copy(ctx, st.LogDir, opts, nil)
	}
	done := make(chan struct{})
	waitCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer close(done)
		_, _ = r.Wait(waitCtx, id) // gone or unknown ends the following too
	}()
	err = logs.Copy(ctx, st.LogDir, opts, done)
	cancel()
	<-done
	return err
}
