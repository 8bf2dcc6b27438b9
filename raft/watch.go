package raft

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"

	hraft "github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/types"
)

const (
	// stuckLimit is how long one write of the log may take. Disks under heavy load stall for a second or two.
	stuckLimit = 4 * time.Second
	// yieldStuck is how long a write may hang before others are asked to lead. With the election after it
	// a new leader is there well before the process ends.
	yieldStuck = 2 * time.Second
	// slowWrite is the median of the writes of slowWindow from which on a disk is too slow to lead.
	slowWrite  = 200 * time.Millisecond
	slowWindow = 2 * time.Second
	// slowSettle is how long a disk must have been fast again.
	slowSettle = 5 * time.Second
	// watchEvery is how often the disk is judged.
	watchEvery = 250 * time.Millisecond
	// probeEvery is how long a disk may be idle before a write tries it.
	probeEvery = time.Second
	// minSpace is the free space below which a disk counts as full: the log's segments are allocated ahead,
	// so that its writes would fail only much later, and snapshots at once.
	minSpace = 4 << 20
)

// Why a node should not lead because of its disk.
const (
	unfitSlow = "its disk is slow"
	unfitFull = "its disk is full"
	unfitFail = "its disk refuses writes"
	unfitHung = "its disk hangs"
)

// beforeWrite lets tests stall a disk; nil in production.
var beforeWrite func(dir string)

// diskLog watches the writes of a log store: it times them and explains failures.
type diskLog struct {
	hraft.LogStore
	dir     string
	last    atomic.Int64              // duration of the last write in nanoseconds
	since   atomic.Int64              // start of the write in progress, Unix nanoseconds, 0 if none
	failure atomic.Pointer[DiskError] // of the last write; only a write that succeeds ends it
	recent  durations

	probing atomic.Int64              // start of the probe in progress, like since
	tried   atomic.Pointer[DiskError] // failure of the last probe
	little  atomic.Bool               // less than minSpace is left

	shortened atomic.Bool // the end was deleted and nothing stored since
	torn      atomic.Bool // and then storing failed
	sealed    atomic.Bool // the store lacks the file for what comes next, and never tries to make it again

	// Nothing is written any more after one of these.
	kept  atomic.Pointer[DiskError] // why the end could not be deleted
	ahead atomic.Pointer[DiskError] // why raft was told that entries are not stored, which are
}

// trouble is what went wrong in the last write or probe, nil if nothing did.
func (l *diskLog) trouble() *DiskError {
	if de := l.failure.Load(); de != nil {
		return de
	}
	return l.tried.Load()
}

// apart is why raft and the log do not agree any more on where the log ends, nil if they do.
func (l *diskLog) apart() *DiskError {
	if de := l.kept.Load(); de != nil {
		return de
	}
	return l.ahead.Load()
}

// DeleteRange notes when the end of the log goes, to make room for other entries. If those cannot be
// stored, hashicorp/raft still believes in the end that is gone and refuses every append. If the end
// cannot be deleted, nothing more is tried: raft-wal takes its last segment as sealed, although the index
// of it was not written, and the next try would make that durable.
func (l *diskLog) DeleteRange(low, high uint64) error {
	if de := l.apart(); de != nil {
		return de
	}
	last, err := l.LastIndex()
	if err != nil || high < last {
		return l.LogStore.DeleteRange(low, high)
	}
	l.shortened.Store(true)
	if err := l.LogStore.DeleteRange(low, high); err != nil {
		de := &DiskError{Dir: l.dir, Err: err}
		l.failure.Store(de)
		l.kept.Store(de)
		return de
	}
	return nil
}

// IsMonotonic tells raft to keep the log without gaps.
func (l *diskLog) IsMonotonic() bool { return true }

func (l *diskLog) StoreLog(log *hraft.Log) error { return l.StoreLogs([]*hraft.Log{log}) }

// StoreLogs notes when it fails although the log has the entries: their record could not be written. Raft
// believes in the end before them then, and what it stores next would not follow on the log's.
func (l *diskLog) StoreLogs(logs []*hraft.Log) error {
	if de := l.apart(); de != nil {
		return de
	}
	err := l.timed(&l.since, func() error { return l.LogStore.StoreLogs(logs) })
	if err != nil {
		de := &DiskError{Dir: l.dir, Err: err}
		l.failure.Store(de)
		if last, err := l.LastIndex(); err == nil && len(logs) > 0 && last >= logs[0].Index {
			l.ahead.Store(de)
			return de
		}
		l.torn.Store(l.torn.Load() || l.shortened.Load())
		l.sealed.Store(l.sealed.Load() || errors.Is(err, types.ErrSealed))
		return de
	}
	l.shortened.Store(false)
	l.failure.Store(nil)
	return nil
}

// timed measures one durable write; in says when it began while it lasts.
func (l *diskLog) timed(in *atomic.Int64, write func() error) error {
	start := time.Now()
	in.Store(start.UnixNano())
	if beforeWrite != nil {
		beforeWrite(l.dir)
	}
	err := write()
	in.Store(0)
	end := time.Now()
	if in == &l.since {
		l.last.Store(int64(end.Sub(start)))
	}
	l.recent.add(end, end.Sub(start))
	return err
}

// stuck is how long the write in progress has been going on, 0 if there is none.
func (l *diskLog) stuck(now time.Time) time.Duration { return running(&l.since, now) }

// busy is stuck, probes included. These end no process: a machine that is only loaded has no use of that.
func (l *diskLog) busy(now time.Time) time.Duration {
	return max(l.stuck(now), running(&l.probing, now))
}

func running(in *atomic.Int64, now time.Time) time.Duration {
	if at := in.Load(); at != 0 {
		return now.Sub(time.Unix(0, at))
	}
	return 0
}

// slow reports whether the disk takes too long, which one stall alone does not show.
func (l *diskLog) slow(now time.Time) bool {
	median, n := l.recent.median(now.Add(-slowWindow), l.busy(now))
	return n >= 2 && median > slowWrite
}

// failed returns the last failure, ErrDisk if it is over.
func (l *diskLog) failed() error {
	if de := l.trouble(); de != nil {
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

// guard ends the node if a write of the log hangs or has left raft with a wrong idea of the log. Raft's
// main loop waits for that write, so nothing less makes a leader with a hung disk give up.
func (n *Node) guard(ctx context.Context) {
	var end wrongEnd
	for ctx.Err() == nil {
		sleep(ctx, watchEvery)
		if err := n.checkEnd(&end, time.Now()); err != nil {
			n.fail(err)
			return
		}
		if n.disk.watch.torn.Load() {
			n.fail(fmt.Errorf("%w: entries were removed and those in their place not stored: this master has to start again to see what its log holds", n.disk.watch.failed()))
			return
		}
		if n.disk.watch.sealed.Load() && n.room() {
			n.fail(fmt.Errorf("%w: there was no space for the next file of the log, and there is now: this master has to start again to make it", n.disk.watch.failed()))
			return
		}
		if de := n.disk.watch.kept.Load(); de != nil && n.room() {
			n.fail(fmt.Errorf("%w: entries that others replace could not be removed: this master has to start again to see what its log holds", de))
			return
		}
		if stuck := n.disk.watch.stuck(time.Now()); stuck > stuckLimit {
			n.fail(fmt.Errorf("%w in %s: a write has been hanging for %v: this master stops so that another one leads; check the disk (dmesg, smartctl); it goes on when the disk does",
				ErrDisk, n.conf.Dir, stuck.Round(time.Millisecond)))
			return
		}
	}
}

// room reports whether the log store can make another file.
func (n *Node) room() bool {
	if n.conf.Storage != nil {
		return true // who simulates it starts the node again until it can
	}
	free, err := freeSpace(n.conf.Dir)
	return err == nil && free > uint64(wal.DefaultSegmentSize)
}

// judgeDisk turns what the disk did lately into reasons not to lead.
func (n *Node) judgeDisk(now time.Time, slowSince *time.Time) {
	w := n.disk.watch
	if w.slow(now) {
		*slowSince = now
	}
	failure := w.trouble()
	full := w.little.Load() || failure != nil && errors.Is(failure, syscall.ENOSPC)
	n.Unfit(unfitSlow, !slowSince.IsZero() && now.Sub(*slowSince) < slowSettle)
	n.Unfit(unfitFull, full)
	n.Unfit(unfitFail, failure != nil && !full)
	n.Unfit(unfitHung, w.busy(now) > yieldStuck)
}
