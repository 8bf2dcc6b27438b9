package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// controlTime bounds a request that is not an exec; stop is the longest.
const controlTime = stopGrace + 10*time.Second

// ErrOff says that a machine has no power or is frozen.
var ErrOff = errors.New("the machine does not answer")

// Command is a program to run in a machine.
type Command struct {
	Args    []string
	Env     []string // added to the machine's own
	Dir     string   // default "/"
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer
	Signals <-chan os.Signal // passed on to the program
}

// Exec runs a command in the machine and returns its exit code (128 and the
// signal if it was killed; 126 or 127 with an error if it did not start).
// Files are handed over as they are, other readers and writers through pipes.
// When ctx ends, the command is killed.
func (l *Lab) Exec(ctx context.Context, machine string, c Command) (int, error) {
	if len(c.Args) == 0 {
		return 0, errors.New("no command to run")
	}
	conn, err := l.dial(machine)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	var io3 stdio
	defer io3.close()
	if err := io3.open(c); err != nil {
		return 0, err
	}
	if err := send(conn, request{Op: "exec", Args: c.Args, Env: c.Env, Dir: c.Dir}, io3.remote); err != nil {
		return 0, fmt.Errorf("%s: %w", machine, err)
	}
	io3.handOver()
	stop := context.AfterFunc(ctx, func() { conn.Close() }) // the machine then kills the command
	defer stop()
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case s := <-c.Signals:
				if n, ok := s.(syscall.Signal); ok {
					_ = send(conn, request{Op: "signal", Signal: int(n)}, nil) // the command may just have ended
				}
			case <-done:
				return
			}
		}
	}()
	var ans answer
	if _, err := receive(conn, &ans); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return 0, fmt.Errorf("%s: connection lost while the command ran: %w", machine, err)
	}
	io3.wait()
	if ans.Error != "" {
		return ans.Code, fmt.Errorf("%s: %s", machine, ans.Error)
	}
	return ans.Code, nil
}

// Output runs a command and returns what it writes to standard output. An
// exit code other than 0 is an error that holds standard error.
func (l *Lab) Output(ctx context.Context, machine string, args ...string) ([]byte, error) {
	var out, errs bytes.Buffer
	code, err := l.Exec(ctx, machine, Command{Args: args, Stdout: &out, Stderr: &errs})
	if err == nil && code != 0 {
		err = fmt.Errorf("%s: %s: exit code %d: %s", machine, strings.Join(args[:min(2, len(args))], " "), code, strings.TrimSpace(errs.String()))
	}
	return out.Bytes(), err
}

func (l *Lab) dial(machine string) (*net.UnixConn, error) {
	s, err := l.state()
	if err != nil {
		return nil, err
	}
	_, m, err := s.machine(machine)
	if err != nil {
		return nil, err
	}
	switch {
	case !m.Process.alive():
		return nil, fmt.Errorf("%s is powered off: %w: 'appliance lab start %s'", machine, ErrOff, machine)
	case m.Paused:
		return nil, fmt.Errorf("%s is paused: %w: 'appliance lab resume %s'", machine, ErrOff, machine)
	}
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: filepath.Join(l.dir, machine, controlSocket), Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", machine, ErrOff, err)
	}
	return conn, nil
}

// ask sends a short request and returns the answer.
func (l *Lab) ask(ctx context.Context, machine string, req request) (answer, error) {
	conn, err := l.dial(machine)
	if err != nil {
		return answer{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	conn.SetDeadline(time.Now().Add(controlTime))
	var ans answer
	err = send(conn, req, nil)
	if err == nil {
		_, err = receive(conn, &ans)
	}
	if err == nil && ans.Error != "" {
		err = errors.New(ans.Error)
	}
	if err != nil {
		return ans, fmt.Errorf("%s: %s: %w", machine, req.Op, err)
	}
	return ans, nil
}

// stdio turns a command's readers and writers into three files for the
// machine, with copying for what is no file.
type stdio struct {
	remote []*os.File // what the machine gets
	own    []*os.File // those of remote that we opened
	ends   []*os.File // our ends of the pipes
	copies sync.WaitGroup
}

func (s *stdio) open(c Command) error {
	if err := s.input(c.Stdin); err != nil {
		return err
	}
	if err := s.output(c.Stdout); err != nil {
		return err
	}
	if c.Stderr != nil && same(c.Stdout, c.Stderr) {
		s.remote = append(s.remote, s.remote[1]) // one pipe: the writer need not be safe for two
		return nil
	}
	return s.output(c.Stderr)
}

// same compares two writers, of which one may be of a kind that Go cannot
// compare.
func same(a, b io.Writer) bool {
	defer func() { _ = recover() }()
	return a == b
}

func (s *stdio) input(r io.Reader) error {
	if f, ok := r.(*os.File); ok && f != nil {
		s.remote = append(s.remote, f)
		return nil
	}
	if r == nil {
		return s.null(os.O_RDONLY)
	}
	in, out, err := os.Pipe()
	if err != nil {
		return err
	}
	s.remote, s.own, s.ends = append(s.remote, in), append(s.own, in), append(s.ends, out)
	go func() { // ends with the reader or, when the command has ended, with the pipe
		io.Copy(out, r)
		out.Close()
	}()
	return nil
}

func (s *stdio) output(w io.Writer) error {
	if f, ok := w.(*os.File); ok && f != nil {
		s.remote = append(s.remote, f)
		return nil
	}
	if w == nil {
		return s.null(os.O_WRONLY)
	}
	in, out, err := os.Pipe()
	if err != nil {
		return err
	}
	s.remote, s.own, s.ends = append(s.remote, out), append(s.own, out), append(s.ends, in)
	s.copies.Go(func() { io.Copy(w, in) })
	return nil
}

func (s *stdio) null(flag int) error {
	f, err := os.OpenFile(os.DevNull, flag, 0)
	if err != nil {
		return err
	}
	s.remote, s.own = append(s.remote, f), append(s.own, f)
	return nil
}

// handOver closes our copies of the machine's files, so that the pipes end
// when the command does.
func (s *stdio) handOver() {
	closeAll(s.own)
	s.own = nil
}

// outputGrace is how long output is awaited after the command's exit: a
// process that it left in the background may hold the pipe for ever.
const outputGrace = 2 * time.Second

func (s *stdio) wait() {
	done := make(chan struct{})
	go func() { s.copies.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(outputGrace):
		for _, f := range s.ends {
			f.SetReadDeadline(time.Now())
		}
		<-done
	}
}

func (s *stdio) close() {
	closeAll(s.own)
	closeAll(s.ends)
	s.copies.Wait()
}
