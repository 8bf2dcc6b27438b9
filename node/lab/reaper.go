package lab

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
)

// reaper starts processes and collects every child of pid 1: those it has
// started and the orphans that the kernel hands to it. One place must do both,
// for wait(2) gives each exit to the first who asks.
type reaper struct {
	mu      sync.Mutex
	waiting map[int]chan syscall.WaitStatus
	signals chan os.Signal
}

func newReaper() *reaper {
	r := &reaper{waiting: map[int]chan syscall.WaitStatus{}, signals: make(chan os.Signal, 1)}
	signal.Notify(r.signals, syscall.SIGCHLD)
	return r
}

// run collects until stop is closed; a nil stop is never.
func (r *reaper) run(stop <-chan struct{}) {
	for {
		r.collect()
		select {
		case <-r.signals:
		case <-stop:
			signal.Stop(r.signals)
			return
		}
	}
}

func (r *reaper) collect() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if c, ok := r.waiting[pid]; ok {
			delete(r.waiting, pid)
			c <- status
		}
	}
}

// start runs argv in a session of its own, with files as its first
// descriptors. The channel yields the exit once.
func (r *reaper) start(argv, env []string, dir string, files []*os.File) (int, <-chan syscall.WaitStatus, error) {
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return 0, nil, err
	}
	fds := make([]uintptr, len(files))
	for i, f := range files {
		fds[i] = f.Fd()
	}
	r.mu.Lock() // an exit before the entry is made would be lost
	defer r.mu.Unlock()
	pid, err := syscall.ForkExec(path, argv, &syscall.ProcAttr{
		Dir: dir, Env: env, Files: fds, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return 0, nil, fmt.Errorf("start %s: %w", path, err)
	}
	exit := make(chan syscall.WaitStatus, 1)
	r.waiting[pid] = exit
	return pid, exit, nil
}

// exitCode is the shell's number for an exit: 128 and the signal for a kill.
func exitCode(s syscall.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}
