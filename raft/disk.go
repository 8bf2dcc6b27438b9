package raft

import (
	"fmt"
	"os"
	"path/filepath"

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
