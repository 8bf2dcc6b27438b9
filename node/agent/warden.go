package agent

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// Applet runs the warden of a plain process if that is what this execution of
// the binary is for, and then does not return. Call it first in main.
func Applet() bool {
	if os.Args[0] == wrapperPath {
		err := withSecrets(os.Args[1:])
		fmt.Fprintln(os.Stderr, "the app cannot be started:", err)
		os.Exit(127) // as a shell says it
	}
	if os.Getenv(AppletEnv) != wardenApplet {
		return false
	}
	if err := warden(); err != nil {
		fmt.Fprintln(os.Stderr, "task-warden:", err)
		os.Exit(1)
	}
	os.Exit(0)
	return true
}

func warden() error {
	var j job
	if err := json.NewDecoder(os.Stdin).Decode(&j); err != nil {
		return err
	}
	base := filepath.Dir(j.Dir)
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	if err := writeFile(filepath.Join(base, "warden.pid"), fmt.Appendln(nil, os.Getpid())); err != nil {
		return err
	}
	rec := exitRecord{}
	if err := runJob(j, base, &rec); err != nil {
		rec.Err = err.Error()
	}
	rec.At = time.Now()
	raw, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(base, "exit.json"), raw)
}

func runJob(j job, base string, rec *exitRecord) error {
	open := func(name string) (*os.File, error) {
		return os.OpenFile(filepath.Join(j.Out, name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	}
	stdout, err := open("stdout")
	if err != nil {
		return err
	}
	stderr, err := open("stderr")
	if err != nil {
		return err
	}
	cmd := exec.Command(j.Path)
	cmd.Args, cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = j.Args, j.Dir, j.Env, stdout, stderr
	signal.Reset(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP) // ignored signals would be inherited
	err = cmd.Start()
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	if err != nil {
		return fmt.Errorf("start %s: %w", j.Path, err)
	}
	if err := writeFile(filepath.Join(base, "command.pid"), fmt.Appendln(nil, cmd.Process.Pid)); err != nil {
		return err
	}
	_ = cmd.Wait() // the state says more than the error
	rec.Code = cmd.ProcessState.ExitCode()
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		rec.Code = 128 + int(ws.Signal())
	}
	return nil
}

// writeFile replaces a file as a whole.
func writeFile(path string, data []byte) error {
	if err := os.WriteFile(path+".tmp", data, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}
