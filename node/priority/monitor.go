package priority

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"
)

// slack is how late the kernel may wake a thread, so that it can do so together with others.
type slack time.Duration

const (
	// calm is a part of the 10 ms that the monitor itself sleeps when it finds nothing to do.
	calm = slack(1 * time.Millisecond)
	// usual is what the threads of a process have (prctl(2), PR_SET_TIMERSLACK).
	usual = slack(50 * time.Microsecond)
)

// set takes any thread of this process (proc(5), /proc/pid/timerslack_ns); it needs CAP_SYS_NICE.
func (s slack) set(tid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/timerslack_ns", tid), strconv.AppendInt(nil, int64(s), 10), 0)
}

// CalmMonitor has the monitor thread of the Go runtime (sysmon in runtime/proc.go) woken less often. As long as a
// goroutine runs, it sleeps for 20 µs at a time, again and again; on a node that always has a little to do, and
// on a machine with several such processes, that was half of all context switches. The price: a
// processor of the runtime that a system call blocks may be given to other goroutines 1 ms later.
//
// The thread is the second of the process: the runtime makes it before it initialises any package. Those that the
// monitor makes inherit its slack, and so do their children, which have to take it back: CalmMonitor and Normal
// both do. It needs CAP_SYS_NICE.
func CalmMonitor() error {
	tid, err := monitor()
	return errors.Join(err, each(func(id int) error {
		if id == tid {
			return calm.set(id)
		}
		return usual.set(id)
	}))
}

func monitor() (tid int, err error) {
	ids, err := threads()
	if err != nil {
		return 0, err
	}
	ids = slices.DeleteFunc(ids, func(tid int) bool { return tid == os.Getpid() })
	if len(ids) == 0 {
		return 0, errors.New("the process has one thread only")
	}
	return slices.Min(ids), nil
}
