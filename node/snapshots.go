package node

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"appliance/raft/archive"
	"appliance/raft/durable"
	"appliance/raft/state"
)

const (
	// snapshotEvery is what a mistake of an operator may cost at most: half a
	// working day. The log itself loses nothing.
	snapshotEvery = 6 * time.Hour
	// snapshotKeep covers a weekend, if something changes all the time.
	snapshotKeep = 12
	// snapshotLook is how often a master looks whether it is time.
	snapshotLook  = 5 * time.Minute
	snapshotStamp = "20060102T150405Z"
	snapshotExt   = ".snapshot"
)

// snapshots saves the state of the cluster to a master's disk now and then,
// in the form of `appliance snapshot save`.
type snapshots struct {
	dir     string
	aside   string // directory for damaged ones
	checked bool   // those of earlier processes are intact
	store   *state.Store
	term    func() uint64
	fresh   func() bool // what this node knows is not old
	version string
	log     *slog.Logger
}

// Run saves until ctx ends.
func (s *snapshots) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		pause(ctx, snapshotLook) // first of all: a node that starts has other things to do
		if ctx.Err() != nil {
			return nil
		}
		path, err := s.step(time.Now().UTC())
		switch {
		case err != nil:
			s.log.Error("cannot save a snapshot of the cluster", "dir", s.dir, "err", err)
		case path != "":
			s.log.Info("saved a snapshot of the cluster", "file", path)
		}
	}
	return nil
}

// step saves a snapshot if it is time for one and something has changed, and
// removes the oldest beyond the bound. It returns the new file.
func (s *snapshots) step(now time.Time) (string, error) {
	if !s.fresh() {
		return "", nil
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return "", err
	}
	files, err := s.list()
	if err == nil && !s.checked {
		files, err = s.check(files)
		s.checked = err == nil
	}
	if err != nil {
		return "", err
	}
	snap := s.store.Snapshot()
	if len(files) > 0 {
		at, index := parseSnapshotName(files[len(files)-1])
		if index == snap.Index() || !at.IsZero() && !at.After(now) && now.Sub(at) < snapshotEvery {
			return "", nil
		}
	}
	path := filepath.Join(s.dir, fmt.Sprintf("%s-%d%s", now.Format(snapshotStamp), snap.Index(), snapshotExt))
	err = replaceFile(path, func(w io.Writer) error {
		return archive.Write(w, snap, archive.Header{Time: now, Term: s.term(), Version: s.version})
	})
	if err != nil {
		return "", err
	}
	for files = append(files, path); len(files) > snapshotKeep; files = files[1:] {
		if err := os.Remove(files[0]); err != nil {
			return path, err
		}
	}
	return path, nil
}

// list returns the snapshots of our making, oldest first, and removes what a
// crash has left. What a person has saved beside them is theirs.
func (s *snapshots) list() ([]string, error) {
	left, err := filepath.Glob(filepath.Join(s.dir, "*"+snapshotExt+".tmp"))
	for _, path := range left {
		if at, _ := parseSnapshotName(strings.TrimSuffix(path, ".tmp")); !at.IsZero() {
			err = errors.Join(err, os.Remove(path))
		}
	}
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(s.dir, "*"+snapshotExt))
	files = slices.DeleteFunc(files, func(path string) bool { at, _ := parseSnapshotName(path); return at.IsZero() })
	slices.SortFunc(files, func(a, b string) int { // clocks may be set back, the index not
		_, x := parseSnapshotName(a)
		_, y := parseSnapshotName(b)
		return cmp.Or(cmp.Compare(x, y), cmp.Compare(a, b))
	})
	return files, err
}

// check moves damaged snapshots aside, so that good ones take their place, and
// returns the others.
func (s *snapshots) check(files []string) (good []string, err error) {
	for _, path := range files {
		bad := verifySnapshot(path)
		if bad == nil {
			good = append(good, path)
			continue
		}
		kept, asideErr := durable.Aside(path, s.aside, time.Now())
		s.log.Error("a saved snapshot is damaged", "file", path, "err", bad, "kept", kept)
		err = errors.Join(err, asideErr)
	}
	return good, err
}

func verifySnapshot(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err == nil {
		_, err = archive.Verify(file, info.Size())
	}
	return err
}

// parseSnapshotName reads time and index from a file's name, zero if it is not
// of our making.
func parseSnapshotName(path string) (time.Time, uint64) {
	name := filepath.Base(path)
	if len(name) < len(snapshotStamp) {
		return time.Time{}, 0
	}
	at, err := time.Parse(snapshotStamp, name[:len(snapshotStamp)])
	if err != nil {
		return time.Time{}, 0
	}
	index, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimPrefix(name[len(snapshotStamp):], "-"), snapshotExt), 10, 64)
	if err != nil {
		return time.Time{}, 0
	}
	return at, index
}

// replaceFile writes a file that is there as a whole or not at all, for root
// only.
func replaceFile(path string, write func(io.Writer) error) error {
	tmp := path + ".tmp"
	file, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(tmp) // gone after the rename
	defer file.Close()
	out := bufio.NewWriterSize(file, 256<<10)
	if err := errors.Join(write(out), out.Flush(), file.Sync()); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// openArchives keeps snapshots and the audit log on a master's disk.
func (n *Node) openArchives(context.Context) error {
	if n.voter == nil {
		return nil
	}
	saved := &snapshots{dir: n.cfg.dir(snapshotDir), aside: n.cfg.dir(damagedDir), store: n.store, term: n.term, fresh: n.core.fresh, version: n.version, log: n.log}
	n.part("snapshots", saved.Run)
	audit := &auditFile{dir: n.cfg.dir("audit"), aside: n.cfg.dir(damagedDir), store: n.store, each: auditPerFile, log: n.log}
	n.part("audit log", audit.Run)
	n.auditCheck = &auditCheck{dir: audit.dir, pause: auditCheckPause, log: n.log}
	n.part("audit files", n.auditCheck.Run)
	return nil
}

func (n *Node) term() uint64 { _, term := n.replica.Position(); return term }
