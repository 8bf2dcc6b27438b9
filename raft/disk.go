package raft

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

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
	dir     string
	log     hraft.LogStore
	stable  hraft.StableStore
	snaps   hraft.SnapshotStore
	watch   *diskLog
	checked *checkedLog // nil with a Storage from outside
	closer  func() error
	closed  atomic.Bool
	looking sync.RWMutex // see lastIndex
}

const (
	keepSnapshots = 2
	logCache      = 1024 // entries kept in memory for replication
)

// openDisk verifies all files in dir, with their second copies in witness, and opens them. Damaged files
// that are not needed are moved to aside.
func openDisk(c Config, log hclog.Logger) (*disk, error) {
	if c.Storage != nil {
		d := &disk{dir: c.Dir, stable: c.Storage, snaps: c.Storage, watch: &diskLog{LogStore: c.Storage, dir: c.Dir}, closer: c.Storage.Close}
		var err error
		d.log, err = hraft.NewLogCache(logCache, d.watch)
		return d, err
	}
	walDir := filepath.Join(c.Dir, "log")
	if err := os.MkdirAll(walDir, 0o700); err != nil {
		return nil, fmt.Errorf("raft directory: %w", err)
	}
	e, err := examine(c.Dir, c.witness())
	if err != nil {
		return nil, fmt.Errorf("verify the log in %s: %w", c.Dir, err)
	}
	if err := e.err(); err != nil {
		return nil, err
	}
	if err := e.repair(c.aside(), log); err != nil {
		if e.copy != nil {
			e.copy.Close()
		}
		return nil, fmt.Errorf("repair the log in %s: %w", c.Dir, err)
	}
	return e.open(c.Dir, log)
}

// open opens what was found intact.
func (e *exam) open(dir string, log hclog.Logger) (*disk, error) {
	meta := &keptMeta{dir: e.walDir, file: e.copy, copy: metaCopy{metaContent: metaContent{Stable: map[string][]byte{}}}}
	maps.Copy(meta.copy.Stable, e.meta.Stable)
	w, err := wal.Open(e.walDir, wal.WithLogger(log.Named("wal")), wal.WithMetaStore(meta))
	if err != nil {
		e.copy.Close()
		return nil, fmt.Errorf("open raft log in %s: %w", e.walDir, err)
	}
	t, err := openTail(filepath.Join(e.witness, tailFile), e.record())
	if err != nil {
		w.Close()
		e.copy.Close()
		return nil, fmt.Errorf("open raft log in %s: %w", e.walDir, err)
	}
	checked := &checkedLog{LogStore: w, dir: e.walDir, tail: t, first: e.first, sums: e.sums}
	d := &disk{dir: dir, stable: w, checked: checked, watch: &diskLog{LogStore: checked, dir: e.walDir}}
	d.closer = func() error { return errors.Join(w.Close(), t.close(), e.copy.Close()) }
	snaps, err := hraft.NewFileSnapshotStoreWithLogger(dir, keepSnapshots, log.Named("snapshot"))
	if err == nil {
		d.snaps = sealedSnaps{SnapshotStore: snaps, dir: dir, tail: t}
		d.log, err = hraft.NewLogCache(logCache, d.watch)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open raft directory %s: %w", dir, err), d.close())
	}
	return d, nil
}

// lastIndex is for those who look beside raft, and may do so while the node stops: raft-wal does not bear
// it once it is closed.
func (d *disk) lastIndex() (uint64, error) {
	d.looking.RLock()
	defer d.looking.RUnlock()
	if d.closed.Load() {
		return 0, ErrClosed
	}
	return d.watch.LastIndex()
}

// recordable reports whether the record of what was stored can be written: otherwise a start would fail. It
// hangs as long as the disk does.
func (d *disk) recordable() bool {
	return d.checked == nil || d.checked.tail.change(true, func(*tailRecord) {}) == nil
}

func (d *disk) close() error {
	d.looking.Lock()
	d.closed.Store(true)
	d.looking.Unlock()
	return d.closer()
}
