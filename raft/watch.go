package raft

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"

	hraft "github.com/hashicorp/raft"
)

// stuckLimit is how long one write of the log may take. Disks under heavy load stall for a second or two.
const stuckLimit = 4 * time.Second

// beforeWrite lets tests stall a disk; nil in production.
var beforeWrite func(dir string)

// diskLog watches the writes of a log store: it times them and explains failures.
type diskLog struct {
	hraft.LogStore
	dir     string
	last    atomic.Int64 // duration of the last write in nanoseconds
	since   atomic.Int64 // start of the write in progress, Unix nanoseconds, 0 if none
	failure atomic.Pointer[DiskError]

	shortened atomic.Bool // the end was deleted and nothing stored since
	torn      atomic.Bool // and then storing failed
}

// DeleteRange notes when the end of the log goes, to make room for other entries. If those cannot be
// stored, hashicorp/raft still believes in the end that is gone and refuses every append.
func (l *diskLog) DeleteRange(low, high uint64) error {
	last, err := l.LastIndex()
	if err == nil && high >= last {
		l.shortened.Store(true)
	}
	return l.LogStore.DeleteRange(low, high)
}

// IsMonotonic tells raft to keep the log without gaps.
func (l *diskLog) IsMonotonic() bool { return true }

func (l *diskLog) StoreLog(log *hraft.Log) error { return l.StoreLogs([]*hraft.Log{log}) }

func (l *diskLog) StoreLogs(logs []*hraft.Log) error {
	start := time.Now()
	l.since.Store(start.UnixNano())
	if beforeWrite != nil {
		beforeWrite(l.dir)
	}
	err := l.LogStore.StoreLogs(logs)
	l.since.Store(0)
	l.last.Store(int64(time.Since(start)))
	if err != nil {
		de := &DiskError{Dir: l.dir, Err: err}
		l.failure.Store(de)
		l.torn.Store(l.torn.Load() || l.shortened.Load())
		return de
	}
	l.shortened.Store(false)
	l.failure.Store(nil)
	return nil
}

// failed returns the last failure, ErrDisk if it is over.
func (l *diskLog) failed() error {
	if de := l.failure.Load(); de != nil {
		return de
	}
	return ErrDisk
}

// DiskError is a failed write of the log. It matches ErrDisk.
type DiskError struct {
	Dir string
	Err error
}

func (e *DiskError) Error() string {
	s := fmt.Sprintf("%v in %s: %v", ErrDisk, e.Dir, e.Err)
	if errors.Is(e.Err, syscall.ENOSPC) {
		return s + ": free some space on that file system; this master goes on by itself then"
	}
	return s + ": check the disk (dmesg, smartctl); the other masters go on"
}

// Unwrap lets errors.Is find ErrDisk and the cause.
func (e *DiskError) Unwrap() []error { return []error{ErrDisk, e.Err} }

// guard ends the node if a write of the log hangs or has left raft with a wrong idea of the log. The leader's heartbeats do not need the disk, so
// without this a leader whose disk hangs would stay leader and stop every change of the cluster.
func (n *Node) guard(ctx context.Context) {
	for ctx.Err() == nil {
		sleep(ctx, electionTimeout)
		if n.disk.watch.torn.Load() {
			n.fail(fmt.Errorf("%w: entries were removed and those in their place not stored: this master has to start again to see what its log holds", n.disk.watch.failed()))
			return
		}
		since := n.disk.watch.since.Load()
		if since == 0 {
			continue
		}
		if stuck := time.Since(time.Unix(0, since)); stuck > stuckLimit {
			n.fail(fmt.Errorf("%w in %s: a write has been hanging for %v: this master stops so that another one leads; check the disk (dmesg, smartctl) and start it again",
				ErrDisk, n.conf.Dir, stuck.Round(time.Millisecond)))
			return
		}
	}
}
