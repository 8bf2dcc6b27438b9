// Package priority sets how eagerly the kernel runs this process.
//
// A node must answer heartbeats in time even while its containers take all
// the CPU: an election that starts for want of CPU makes a busy cluster worse.
// So the node runs at a raised priority, and the processes that it starts
// (shims and the containers below them, volume clients) go back to normal.
//
// And a node is woken all the time, by little things. What the Go runtime adds
// to that by looking after itself is calmed.
package priority

import (
	"errors"
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

// Normal gives every thread of this process the normal priority and the usual timers. Children of
// a node call it first.
func Normal() error { return errors.Join(set(0), each(usual.set)) }

func set(nice int) error {
	// setpriority(2) on Linux concerns one thread.
	return each(func(tid int) error { return unix.Setpriority(unix.PRIO_PROCESS, tid, nice) })
}

// each calls fn for every thread of this process.
func each(fn func(tid int) error) error {
	ids, err := threads()
	for _, tid := range ids {
		if err := fn(tid); err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, os.ErrNotExist) {
			return err // a thread that has just ended is no fault
		}
	}
	return err
}

func threads() ([]int, error) {
	entries, err := os.ReadDir("/proc/self/task")
	var ids []int
	for _, e := range entries {
		if tid, err := strconv.Atoi(e.Name()); err == nil {
			ids = append(ids, tid)
		}
	}
	return ids, err
}
