// Package priority sets how eagerly the kernel runs this process.
//
// A node must answer heartbeats in time even while its containers take all
// the CPU: an election that starts for want of CPU makes a busy cluster worse.
// So the node runs at a raised priority, and the processes that it starts
// (shims and the containers below them, volume clients) go back to normal.
package priority

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// raised is the nice value of a node: well above anything that runs beside
// it, below what the kernel's own threads use.
const raised = -10

// Raise gives every thread of this process a raised priority; threads made
// later inherit it. It needs CAP_SYS_NICE.
func Raise() error { return set(raised) }

// Normal gives every thread of this process the normal priority. Children of
// a node call it first.
func Normal() error { return set(0) }

// set walks the threads: setpriority(2) on Linux concerns one thread.
func set(nice int) error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		if err := unix.Setpriority(unix.PRIO_PROCESS, tid, nice); err != nil && err != unix.ESRCH {
			return err // a thread that has just ended is no fault
		}
	}
	return nil
}
