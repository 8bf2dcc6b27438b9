package runtime

import (
	"fmt"
	"time"
)

// State is where a container stands. It only moves forward.
type State string

// The states of a container.
const (
	StateCreated State = "created"
	StateRunning State = "running"
	StateExited  State = "exited"
)

// Status is what an engine knows about one container.
type Status struct {
	ID      string
	Image   string // as in the spec
	Labels  map[string]string
	State   State
	Pid     int  // on the host; 0 unless running
	Exit    Exit // when StateExited
	IP      string
	Ports   []PortMapping
	LogDir  string
	Created time.Time
	Started time.Time
}

// Exit tells how a container ended.
type Exit struct {
	// Known is false when nobody saw the exit (engine killed, machine lost
	// power): Code then means nothing and the task is lost, not failed.
	Known bool
	Code  int // 128+n after signal n, as shells do
	OOM   bool
	At    time.Time
}

// Signal is the signal that ended the container, or 0.
func (e Exit) Signal() Signal {
	if e.Known && e.Code > 128 && e.Code < 128+65 {
		return Signal(e.Code - 128)
	}
	return 0
}

func (e Exit) String() string {
	switch {
	case !e.Known:
		return "exit unknown: the runtime lost sight of the container"
	case e.OOM:
		return fmt.Sprintf("killed: out of memory (exit code %d)", e.Code)
	case e.Signal() != 0:
		return fmt.Sprintf("killed by signal %d (%s), exit code %d", int(e.Signal()), e.Signal(), e.Code)
	}
	return fmt.Sprintf("exit code %d", e.Code)
}
