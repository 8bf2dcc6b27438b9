package raft

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const (
	probeFile  = "probe" // in the data directory; also the key in a Storage
	probeBytes = 4 << 10
)

// probe writes to an idle or failed disk, so that trouble is seen before a change waits for it, and that
// its end is seen at all. It ends with ctx, or, if the disk hangs, when that does. Only a write of the log
// ends a failure of one: what is well here may be another file than the one that is not.
func (n *Node) probe(ctx context.Context) {
	w := n.disk.watch
	for ctx.Err() == nil {
		sleep(ctx, probeEvery)
		failed := w.trouble() != nil || w.little.Load()
		if ctx.Err() == nil && (failed || time.Since(w.recent.newest()) >= probeEvery) {
			n.probeOnce(failed)
		}
		if de := w.ahead.Load(); de != nil && ctx.Err() == nil && n.disk.recordable() {
			n.fail(fmt.Errorf("%w: entries were stored and not their record: this master has to start again to see what its log holds", de))
			return
		}
		if n.conf.Storage != nil {
			continue
		}
		w.probing.Store(time.Now().UnixNano())
		free, err := freeSpace(n.conf.Dir)
		w.probing.Store(0)
		w.little.Store(err == nil && free < minSpace)
	}
}

func (n *Node) probeOnce(failed bool) {
	w := n.disk.watch
	err := w.timed(&w.probing, func() error {
		if n.conf.Storage != nil {
			return n.conf.Storage.SetUint64([]byte(probeFile), 1)
		}
		return tryDisk(n.conf.Dir, failed)
	})
	if err != nil {
		w.tried.Store(&DiskError{Dir: w.dir, Err: err})
		return
	}
	w.tried.Store(nil)
}

// tryDisk makes a durable write in dir, small, or if it failed before, of some size.
func tryDisk(dir string, failed bool) error {
	f, err := os.OpenFile(filepath.Join(dir, probeFile), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	size := probeBytes
	if failed {
		size = minSpace
	}
	_, err = f.WriteAt(make([]byte, size), 0)
	err = errors.Join(err, f.Sync())
	if failed {
		err = errors.Join(err, f.Truncate(probeBytes))
	}
	return errors.Join(err, f.Close())
}

// freeSpace is how many bytes can be written in dir.
func freeSpace(dir string) (uint64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return st.Bavail * uint64(st.Bsize), nil
}
