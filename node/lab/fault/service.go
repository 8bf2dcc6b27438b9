package fault

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// processes finds the service: the children of the first process with just
// that command line.
func processes(service []string) []int {
	want := []byte(strings.Join(service, "\x00") + "\x00")
	var pids []int
	entries, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range entries {
		line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || !bytes.Equal(line, want) {
			continue
		}
		if parent, _ := stat(dir); parent != "1" {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// stat returns the parent and the state letter (proc(5)).
func stat(dir string) (parent, state string) {
	text, _ := os.ReadFile(filepath.Join(dir, "stat"))
	rest := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(rest) < 2 {
		return "", ""
	}
	return rest[1], rest[0]
}

func signalAll(service []string, sig syscall.Signal) error {
	pids := processes(service)
	if len(pids) == 0 {
		return fmt.Errorf("the service does not run: %s", strings.Join(service, " "))
	}
	var err error
	for _, pid := range pids {
		if e := syscall.Kill(pid, sig); e != nil && e != syscall.ESRCH {
			err = errors.Join(err, fmt.Errorf("signal process %d: %w", pid, e))
		}
	}
	return err
}

func stopped(service []string) (pids []int) {
	for _, pid := range processes(service) {
		if _, state := stat(fmt.Sprintf("/proc/%d", pid)); state == "T" {
			pids = append(pids, pid)
		}
	}
	return pids
}

// wake lets every child of the first process go on that is stopped, unless a
// pause is in force: only we stop services.
func (m Machine) wake(live []Fault) error {
	for _, f := range live {
		if f.Kind == Pause {
			return nil
		}
	}
	entries, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range entries {
		if parent, state := stat(dir); parent == "1" && state == "T" {
			if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
				_ = syscall.Kill(pid, syscall.SIGCONT) // it may just have ended
			}
		}
	}
	return nil
}
