package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"appliance/node/model"
	"appliance/node/runtime"
)

// process runs a command task of an external framework that names no image,
// as Mesos' own containerizer does: on the node's file system, in a sandbox
// directory. It is not isolated and not limited; only operators may let
// frameworks in.
//
// A small warden process (this binary, as an applet) is the parent of the
// command and writes its exit to disk, so that nothing is lost while the
// agent restarts.
type process struct {
	dir  string // sandbox
	job  job
	task model.Task
}

// job is what the warden is told, on its standard input.
type job struct {
	Dir  string   `json:"dir"`
	Args []string `json:"args"`
	Path string   `json:"path"`
	Env  []string `json:"env"`
	Out  string   `json:"out"` // directory of stdout and stderr
}

// AppletEnv names the applet of the binary that is to run instead of the
// command line.
const AppletEnv = "APPLIANCE_APPLET"

const wardenApplet = "task-warden"

// poll is how often the agent looks for the exit file.
const poll = 50 * time.Millisecond

func newProcess(cfg Config, t model.Task, spec model.AppSpec) *process {
	logs, dir := LogDir(cfg.Dir, t.ID), sandboxDir(cfg, t)
	p := &process{dir: dir, task: t}
	p.job = job{Dir: dir, Out: logs, Env: append(environment(cfg, t, spec),
		"MESOS_SANDBOX="+dir, "MESOS_DIRECTORY="+dir, "PATH="+os.Getenv("PATH"))}
	switch {
	case spec.Shell != "":
		p.job.Path, p.job.Args = "/bin/sh", []string{"sh", "-c", spec.Shell}
	case len(spec.Command) > 0:
		p.job.Path, p.job.Args = spec.Command[0], append([]string{spec.Command[0]}, spec.Args...)
	}
	return p
}

// sandboxDir is the working directory of a foreign task, with its artifacts.
func sandboxDir(cfg Config, t model.Task) string {
	return filepath.Join(filepath.Dir(LogDir(cfg.Dir, t.ID)), "sandbox")
}

func (p *process) file(name string) string { return filepath.Join(filepath.Dir(p.dir), name) }

func (p *process) start(ctx context.Context) error {
	if p.job.Path == "" {
		return runtime.Fail(runtime.ErrInvalid, errors.New("the task has neither an image nor a command"), "start task")
	}
	for _, d := range []string{p.dir, p.job.Out} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	if _, err := os.Stat(p.file("warden.pid")); err == nil {
		return nil // a try before a crash has started it
	}
	if err := fetch(ctx, p.dir, p.task.Foreign.URIs); err != nil {
		return err
	}
	raw, err := json.Marshal(p.job)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	in, out, err := os.Pipe()
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command(self) // not CommandContext: it outlives us on purpose
	cmd.Env = append(os.Environ(), AppletEnv+"="+wardenApplet)
	cmd.Stdin = in
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	in.Close()
	if err != nil {
		return runtime.Fail(runtime.ErrCommand, err, "start task")
	}
	if _, err := out.Write(raw); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }() // reaps the warden if it ends before us
	return nil
}

type exitRecord struct {
	Code int       `json:"code"`
	At   time.Time `json:"at"`
	Err  string    `json:"err,omitempty"`
}

func (p *process) wait(ctx context.Context) (runtime.Exit, error) {
	for ctx.Err() == nil {
		raw, err := os.ReadFile(p.file("exit.json"))
		var rec exitRecord
		if err == nil && json.Unmarshal(raw, &rec) == nil {
			if rec.Err != "" {
				return runtime.Exit{}, errors.New(rec.Err)
			}
			return runtime.Exit{Known: true, Code: rec.Code, At: rec.At}, nil
		}
		if pid := p.pid(); pid > 0 && syscall.Kill(pid, 0) != nil {
			if _, err := os.Stat(p.file("exit.json")); err != nil {
				return runtime.Exit{}, nil // the warden died with the machine
			}
		}
		sleep(ctx, poll)
	}
	return runtime.Exit{}, ctx.Err()
}

func (p *process) pid() int {
	raw, err := os.ReadFile(p.file("warden.pid"))
	if err != nil {
		return 0
	}
	var pid int
	_, _ = fmt.Sscan(string(raw), &pid)
	return pid
}

func (p *process) ip(context.Context) string { return "" }

func (p *process) exec(ctx context.Context, args []string) (int, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir, cmd.Env = p.dir, p.job.Env
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// stop signals the command's process group; the warden itself ignores
// SIGTERM and reports the exit.
func (p *process) stop(ctx context.Context, grace time.Duration) error {
	pid := p.pid()
	if pid <= 0 {
		return runtime.ErrNotFound
	}
	_ = syscall.Kill(-pid, syscall.SIGTERM)
	deadline := time.Now().Add(grace)
	for time.Now().Before(deadline) && ctx.Err() == nil {
		if _, err := os.Stat(p.file("exit.json")); err == nil {
			return nil
		}
		sleep(ctx, poll)
	}
	raw, err := os.ReadFile(p.file("command.pid"))
	if err != nil {
		return err
	}
	var command int
	if _, err := fmt.Sscan(string(raw), &command); err != nil || command <= 1 {
		return fmt.Errorf("command.pid: %q", raw)
	}
	return syscall.Kill(command, syscall.SIGKILL)
}

func (p *process) remove(context.Context) error { return nil } // the sandbox stays for the reader
