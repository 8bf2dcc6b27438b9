package fault

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Machine is where faults are made.
type Machine struct {
	Dir  string // of the records; lost when the power is
	Link string // network interface
	Disk string // address of the lying disk, "" if it is an honest one
	API  string // unix socket of the service's API
}

// converge makes the machine suffer from what is in force at now, and from
// nothing else of ours. The fault with the id over counts as ended. Everything
// is tried, also if something fails. The caller holds the lock.
func (m Machine) converge(now time.Time, over string) error {
	list, err := List(m.Dir)
	if err != nil {
		return err
	}
	live := list[:0]
	for _, f := range list {
		if f.Until.After(now) && f.ID != over {
			live = append(live, f)
		}
	}
	return errors.Join(m.network(live, now), m.rate(live), m.disk(live), m.clock(live), m.address(live), m.wake(live))
}

// begin notes the fault and makes it. If it cannot be made, nothing is left.
func (m Machine) begin(f Fault, now time.Time) error {
	if err := f.check(now); err != nil {
		return err
	}
	unlock, err := lock(m.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	list, err := List(m.Dir)
	if err != nil {
		return err
	}
	if len(list) >= maxRecords {
		return fmt.Errorf("%d faults are in force: heal them first", len(list))
	}
	path := filepath.Join(m.Dir, f.ID+recordEnd)
	if err := write(path, f); err != nil {
		return err
	}
	err = m.converge(now, "")
	if err == nil && f.Kind == Pause {
		err = signalAll(f.Service, syscall.SIGSTOP)
	}
	if err != nil {
		return errors.Join(err, os.Remove(path), m.converge(now, ""))
	}
	return nil
}

// end ends one fault and notes that it did. It is fine to end it twice.
func (m Machine) end(f Fault, by string, hits uint64) error {
	unlock, err := lock(m.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	path := filepath.Join(m.Dir, f.ID+recordEnd)
	switch err := read(path, &f); { // it may have been seen meanwhile
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return errors.Join(err, os.Remove(path), m.converge(time.Now(), f.ID))
	}
	hits += m.hits(f)
	err = write(filepath.Join(m.Dir, f.ID+endedEnd), Ended{f, hits, by})
	return errors.Join(err, m.converge(time.Now(), f.ID), os.Remove(path)) // whoever sees no record sees no fault
}

// hits is what the kernel and the disk have counted for the fault, or 1 if
// the service has shown it. Faults of a kind that overlap share their counts:
// they tell effect from no effect.
func (m Machine) hits(f Fault) uint64 {
	switch f.Kind {
	case Cut, Loss:
		return m.drops()
	case SlowLink:
		return m.drops() + m.queued()
	case FullDisk, SlowDisk, HungDisk:
		return m.diskHits()
	case Pause:
		return uint64(len(stopped(f.Service)))
	case Clock, Address:
		if f.Seen {
			return 1
		}
	}
	return 0
}

// Heal ends every fault, and removes whatever could be left of one that
// nobody remembers.
func (m Machine) Heal() error {
	err := m.End("")
	unlock, lerr := lock(m.Dir)
	if lerr != nil {
		return errors.Join(err, lerr)
	}
	defer unlock()
	return errors.Join(err, m.converge(time.Now(), ""))
}

// End ends the fault with the id, or all of them if it is empty. One that is
// over already is no error.
func (m Machine) End(id string) error {
	list, err := List(m.Dir)
	for _, f := range list {
		if id != "" && f.ID != id {
			continue
		}
		err = errors.Join(err, m.end(f, "heal", 0))
		if f.Keeper > 0 && isKeeper(f.Keeper) {
			_ = syscall.Kill(f.Keeper, syscall.SIGTERM) // it finds its fault ended, and ends
		}
	}
	return err
}

// sweepGrace is what a keeper may be late: the machine may be busy.
const sweepGrace = 3 * time.Second

// Sweep ends what is overdue, or has lost its keeper. It is the second line,
// for the machine's first process, once a second.
func (m Machine) Sweep(now time.Time) error {
	list, err := List(m.Dir)
	for _, f := range list {
		orphan := f.Keeper > 0 && !isKeeper(f.Keeper) && now.After(f.Began.Add(sweepGrace))
		if orphan || now.After(f.Until.Add(sweepGrace)) {
			err = errors.Join(err, m.end(f, "sweep", 0))
		}
	}
	return errors.Join(err, m.goHome(list, now))
}

// goHome tries again to take back an address whose fault is over.
func (m Machine) goHome(list []Fault, now time.Time) error {
	mv, err := m.moved()
	if err != nil || mv == nil || slices.ContainsFunc(list, func(f Fault) bool { return f.Kind == Address }) {
		return err
	}
	unlock, err := lock(m.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	return m.converge(now, "")
}

// isKeeper says whether the process is one of ours: pids are given again.
func isKeeper(pid int) bool {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return strings.HasPrefix(string(text), keeperName+"\x00")
}
