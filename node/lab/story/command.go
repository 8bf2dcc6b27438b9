package story

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"appliance/node/lab"
)

// commandTime bounds a command: the longest is a deployment that is reverted.
const commandTime = 90 * time.Second

// Result is how a command ended.
type Result struct {
	Code   int
	Stdout string
	Stderr string
}

// run prints a command, runs it as a child process and shows what it says. An
// exit code other than 0 is an error.
func (s *Story) run(ctx context.Context, args ...string) (string, error) {
	args = s.at(args)
	s.out.command(append([]string{"appliance"}, args...))
	out, errs := s.out.indent(), s.out.indent()
	res, err := s.child(ctx, args, out, errs)
	out.flush()
	errs.flush()
	if err == nil && res.Code != 0 {
		err = fmt.Errorf("appliance %s: exit code %d: %s", strings.Join(args[:min(2, len(args))], " "), res.Code, strings.TrimSpace(res.Stderr))
	}
	return res.Stdout, err
}

// Command runs the command line without showing it, and returns how it ended.
func (s *Story) Command(ctx context.Context, args ...string) (Result, error) {
	return s.child(ctx, s.at(args), io.Discard, io.Discard)
}

// at adds where the lab is, if it is not at the default place.
func (s *Story) at(args []string) []string {
	if s.o.Dir == lab.DefaultDir || args[0] != "lab" {
		return args
	}
	return append([]string{args[0], args[1], "--dir", s.o.Dir}, args[2:]...)
}

func (s *Story) child(ctx context.Context, args []string, out, errs io.Writer) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	var keepOut, keepErr bytes.Buffer
	cmd := exec.CommandContext(ctx, s.o.Binary, args...)
	cmd.Env = append(os.Environ(), "APPLIANCE_ADDR="+s.anyAPI())
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&keepOut, out), io.MultiWriter(&keepErr, errs)
	cmd.WaitDelay = time.Second // a grandchild may hold the pipes
	err := cmd.Run()
	res := Result{Stdout: keepOut.String(), Stderr: keepErr.String()}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return res, fmt.Errorf("appliance %s: %w after %s: %s", strings.Join(args, " "), ctx.Err(), commandTime, res.Stderr)
	case errors.As(err, &exit):
		res.Code = exit.ExitCode()
		return res, nil
	}
	return res, err
}

// anyAPI is what the command line finds by itself in the default lab: the
// first machine that answers. Elsewhere it has to be told.
func (s *Story) anyAPI() string {
	if s.o.Dir == lab.DefaultDir {
		return ""
	}
	if m := s.anyone(); m != "" {
		return "unix://" + s.socket(m)
	}
	return ""
}

// anyone is the first machine whose API answers now, masters first.
func (s *Story) anyone() string {
	for _, m := range s.cluster.Machines {
		if answers(s.socket(m.Name)) {
			return m.Name
		}
	}
	return ""
}

func (s *Story) socket(machine string) string {
	return filepath.Join(s.o.Dir, machine, "run", "api.sock")
}
