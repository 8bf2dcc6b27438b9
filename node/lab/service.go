package lab

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	// restartWait is the pause before a restart, as RestartSec=1 of the unit
	// that real machines get.
	restartWait = time.Second
	// stopGrace is what a service has between SIGTERM and SIGKILL.
	stopGrace = 15 * time.Second
	// maxLog is the size beyond which a restart begins a new log: a service
	// that crashes for days must not fill the host's disk.
	maxLog = 64 << 20
)

// ServiceStatus is the state of a machine's supervised service.
type ServiceStatus struct {
	State    string    `json:"state"` // running, stopped, waiting (for the restart)
	Pid      int       `json:"pid,omitempty"`
	Since    time.Time `json:"since"`
	Restarts int       `json:"restarts"` // starts after an exit that nobody asked for
	LastExit string    `json:"last_exit,omitempty"`
}

// service supervises one command: Restart=always and KillMode=process of
// systemd. Its containers outlive it. Only run starts and waits; the other
// methods change what is wanted and signal.
type service struct {
	reaper *reaper
	argv   []string
	env    []string
	output *os.File
	kick   chan struct{} // wanted has changed

	mu     sync.Mutex
	wanted bool
	status ServiceStatus
	gone   chan struct{} // closed when the running process has ended
}

func newService(r *reaper, argv, env []string, output *os.File) *service {
	return &service{reaper: r, argv: argv, env: env, output: output, kick: make(chan struct{}, 1),
		status: ServiceStatus{State: "stopped", Since: time.Now()}}
}

// run is the loop of the supervisor; it lives as long as the machine.
func (s *service) run() {
	for {
		for !s.isWanted() {
			<-s.kick
		}
		s.once()
		if !s.isWanted() {
			s.set("stopped")
			continue
		}
		s.set("waiting")
		select {
		case <-time.After(restartWait):
		case <-s.kick:
		}
		s.mu.Lock()
		if s.wanted {
			s.status.Restarts++
		} else {
			s.status.State = "stopped"
		}
		s.mu.Unlock()
	}
}

// once runs the command to its end.
func (s *service) once() {
	null, err := os.OpenFile(os.DevNull, os.O_RDONLY, 0)
	if err != nil {
		s.failed(err)
		return
	}
	defer null.Close()
	if st, err := s.output.Stat(); err == nil && st.Size() > maxLog {
		_ = s.output.Truncate(0) // a full log is still a log
	}
	s.mu.Lock()
	if !s.wanted {
		s.mu.Unlock()
		return
	}
	pid, exit, err := s.reaper.start(s.argv, s.env, "/", []*os.File{null, s.output, s.output})
	if err != nil {
		s.mu.Unlock()
		s.failed(err)
		return
	}
	gone := make(chan struct{})
	s.gone = gone
	s.status.State, s.status.Pid, s.status.Since = "running", pid, time.Now()
	s.mu.Unlock()
	status := <-exit
	s.mu.Lock()
	s.status.Pid, s.status.LastExit = 0, describe(status)
	s.gone = nil
	s.mu.Unlock()
	close(gone)
}

func (s *service) failed(err error) {
	fmt.Fprintf(s.output, "supervisor: %v\n", err)
	s.mu.Lock()
	s.status.LastExit = err.Error()
	s.mu.Unlock()
}

func describe(w syscall.WaitStatus) string {
	if w.Signaled() {
		return "killed by " + w.Signal().String()
	}
	return fmt.Sprintf("exit %d", w.ExitStatus())
}

func (s *service) isWanted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wanted
}

func (s *service) set(state string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.State, s.status.Since = state, time.Now()
}

func (s *service) want(on bool) {
	s.mu.Lock()
	s.wanted = on
	s.mu.Unlock()
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

func (s *service) snapshot() ServiceStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// signal sends sig to the running process, if any, and returns a channel that
// is closed when that process has ended.
func (s *service) signal(sig syscall.Signal) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone == nil {
		ended := make(chan struct{})
		close(ended)
		return ended
	}
	_ = syscall.Kill(s.status.Pid, sig) // only fails if it has just ended
	return s.gone
}

// stop ends the service and keeps it stopped.
func (s *service) stop() {
	s.want(false)
	select {
	case <-s.signal(syscall.SIGTERM):
	case <-time.After(stopGrace):
		<-s.signal(syscall.SIGKILL)
	}
}

// kill is the crash: SIGKILL, then a restart unless stay.
func (s *service) kill(stay bool) {
	if stay {
		s.want(false)
	}
	<-s.signal(syscall.SIGKILL)
}
