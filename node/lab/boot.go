package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// bootTime bounds the start of one machine: namespaces and mounts take tens
// of milliseconds, the rest is room for a loaded host.
const bootTime = 30 * time.Second

// bootProcess starts a machine or the switch and returns it once its mounts
// are made and its control socket listens.
func bootProcess(ctx context.Context, exe string, cfg machineConfig) (process, error) {
	ctx, cancel := context.WithTimeout(ctx, bootTime)
	defer cancel()
	text, err := json.Marshal(cfg)
	if err != nil {
		return process{}, err
	}
	config := filepath.Join(cfg.Dir, "machine.json")
	if err := os.WriteFile(config, text, 0o600); err != nil {
		return process{}, err
	}
	console, err := os.OpenFile(filepath.Join(cfg.Dir, "console"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return process{}, err
	}
	defer console.Close()
	in, out, err := os.Pipe()
	if err != nil {
		return process{}, err
	}
	defer in.Close()
	cmd := exec.CommandContext(ctx, exe)
	cmd.Args = []string{"appliance-lab", cfg.Name}
	cmd.Env = append([]string{envApplet + "=" + appletBoot, envLab + "=" + cfg.Lab, envConfig + "=" + config, "PATH=" + defaultPath}, cfg.Env...)
	cmd.Stderr = console
	cmd.ExtraFiles = []*os.File{out}
	err = cmd.Start()
	out.Close()
	if err != nil {
		return process{}, fmt.Errorf("start machine %s: %w", cfg.Name, err)
	}
	stop := context.AfterFunc(ctx, func() { in.SetReadDeadline(time.Now()) })
	defer stop()
	p, err := readReports(in)
	if werr := cmd.Wait(); err == nil && werr != nil {
		err = werr
	}
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w (%w)", err, ctx.Err())
		}
		return p, fmt.Errorf("start machine %s: %w: see %s", cfg.Name, err, console.Name())
	}
	return p, nil
}

// readReports follows the start until the machine is ready. The process is
// returned also with an error, so that the caller can end it.
func readReports(in io.Reader) (process, error) {
	var p process
	for dec := json.NewDecoder(in); ; {
		var r report
		if err := dec.Decode(&r); err != nil {
			return p, fmt.Errorf("it ended before it was ready: %w", err)
		}
		switch {
		case r.Error != "":
			return p, fmt.Errorf("%s", r.Error)
		case r.Pid != 0:
			var err error
			if p, err = processOf(r.Pid); err != nil {
				return p, err
			}
		case r.Ready && p.Pid != 0:
			return p, nil
		case r.Ready:
			// The machine was faster than the boot step: its pid comes next.
			if err := dec.Decode(&r); err != nil || r.Pid == 0 {
				return p, fmt.Errorf("it did not report its pid: %v", err)
			}
			return processOf(r.Pid)
		}
	}
}
