package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process names a process for good: a pid is given again, a pid with its
// start time is not.
type process struct {
	Pid     int    `json:"pid,omitempty"`
	Started uint64 `json:"started,omitempty"` // clock ticks since boot
}

func processOf(pid int) (process, error) {
	started, _, err := readStat(pid)
	return process{pid, started}, err
}

// readStat returns start time and state letter from /proc/PID/stat (proc(5)).
func readStat(pid int) (started uint64, state byte, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	// The command name in field 2 may hold anything; the last ')' ends it.
	rest := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	const stateField, startField = 3 - 3, 22 - 3
	if len(rest) <= startField {
		return 0, 0, fmt.Errorf("/proc/%d/stat: short line", pid)
	}
	started, err = strconv.ParseUint(rest[startField], 10, 64)
	return started, rest[stateField][0], err
}

// alive is false for a zombie: it holds no namespace any more.
func (p process) alive() bool {
	if p.Pid == 0 {
		return false
	}
	started, state, err := readStat(p.Pid)
	return err == nil && started == p.Started && state != 'Z' && state != 'X'
}

// kill ends the process and waits until it is gone. For pid 1 of a pid
// namespace that is the end of every process in it.
func (p process) kill(ctx context.Context) error {
	for p.alive() {
		if err := syscall.Kill(p.Pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
			return fmt.Errorf("kill process %d: %w", p.Pid, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("process %d does not die: %w: see /proc/%d/stack for what it waits on", p.Pid, ctx.Err(), p.Pid)
		case <-time.After(2 * time.Millisecond):
		}
	}
	return nil
}

// findProcesses returns the lab's own processes (not the children in the
// machines) by the mark in their environment, for when no file remembers them.
func findProcesses(dir string) []process {
	var found []process
	entries, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range entries {
		env, err := os.ReadFile(path)
		if err != nil || !hasEnv(env, envLab+"="+dir) || !bytes.Contains(env, []byte(envApplet+"=")) {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if p, err := processOf(pid); err == nil && p.alive() {
			found = append(found, p)
		}
	}
	return found
}

func hasEnv(env []byte, entry string) bool {
	for _, e := range bytes.Split(env, []byte{0}) {
		if string(e) == entry {
			return true
		}
	}
	return false
}
