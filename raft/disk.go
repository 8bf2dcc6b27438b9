package raft

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	hclog "github.com/hashicorp/go-hclog"
	hraft "github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
)

// Storage is where a node keeps its log, its vote and its snapshots. Whatever a call has stored when it
// returns must survive a crash.
type Storage interface {
	hraft.LogStore
	hraft.StableStore
	hraft.SnapshotStore
	Close() error
}

// disk holds what raft writes: the log and the vote in raft-wal (whose metadata is a bbolt file) and
// snapshots in files. The WAL is monotonic, which avoids hashicorp/raft issue 697.
type disk struct {
	dir    string
	log    hraft.LogStore
	stable hraft.StableStore
	snaps  hraft.SnapshotStore
	watch  *diskLog
	closer func() error
}

const (
	keepSnapshots = 2
	logCache      = 1024 // entries kept in memory for replication
)

func openDisk(dir string, storage Storage, log hclog.Logger) (*disk, error) {
	if storage != nil {
		d := &disk{dir: dir, stable: storage, snaps: storage, watch: &diskLog{LogStore: storage, dir: dir}, closer: storage.Close}
		var err error
		d.log, err = hraft.NewLogCache(logCache, d.watch)
		return d, err
	}
	walDir := filepath.Join(dir, "log")
	if err := os.MkdirAll(walDir, 0o700); err != nil {
		return nil, fmt.Errorf("raft directory: %w", err)
	}
	w, err := wal.Open(walDir, wal.WithLogger(log.Named("wal")))
	if err != nil {
		return nil, fmt.Errorf("open raft log in %s: %w: if it is damaged, remove the directory and join this node again", walDir, err)
	}
	d := &disk{dir: dir, stable: w, watch: &diskLog{LogStore: w, dir: walDir}, closer: w.Close}
	if d.log, err = hraft.NewLogCache(logCache, d.watch); err == nil {
		d.snaps, err = hraft.NewFileSnapshotStoreWithLogger(dir, keepSnapshots, log.Named("snapshot"))
	}
	if err != nil {
		w.Close()
		return nil, fmt.Errorf("open raft directory %s: %w", dir, err)
	}
	return d, nil
}

func (d *disk) close() error { return d.closer() }

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
