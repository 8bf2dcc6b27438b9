package node

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"appliance/discovery/discoverytest"
	"appliance/node/model"
	"appliance/raft/archive"
	"appliance/raft/command"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestScheduledSnapshots(t *testing.T) {
	c := discoverytest.New()
	c.Must(&command.InitCluster{Cluster: model.Cluster{ID: "c1"}})
	fresh := false
	s := &snapshots{dir: filepath.Join(t.TempDir(), "snapshots"), store: c.Store, term: func() uint64 { return 4 },
		fresh: func() bool { return fresh }, log: quiet()}
	now := discoverytest.Start
	change := func() { c.Must(&command.KVTxn{Ops: []command.KVOp{{Verb: "set", Key: "a"}}}) }
	step := func(name string, saved bool) string {
		t.Helper()
		path, err := s.step(now)
		if err != nil || (path != "") != saved {
			t.Fatalf("%s: %q %v", name, path, err)
		}
		return path
	}
	step("out of touch", false)
	fresh = true
	path := step("first", true)
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	info, _ := file.Stat()
	if h, err := archive.Verify(file, info.Size()); err != nil || h.Cluster != "c1" || h.Term != 4 || info.Mode().Perm() != 0o600 {
		t.Errorf("%+v %v %v", h, err, info.Mode())
	}
	now = now.Add(2 * snapshotEvery)
	step("nothing has changed", false)
	change()
	step("changed", true)
	change()
	now = now.Add(snapshotEvery - time.Minute)
	step("too early", false)
	now = now.Add(-10 * snapshotEvery)
	step("the clock was set back", true)
	change()
	step("and goes on from there", false)
	now = now.Add(20 * snapshotEvery)
	cut := filepath.Join(s.dir, now.Format(snapshotStamp)+"-9"+snapshotExt+".tmp")
	saved := []string{filepath.Join(s.dir, "before"+snapshotExt), filepath.Join(s.dir, "20200101-by-hand"+snapshotExt)} // by a person
	for _, path := range append(saved, cut) {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for range snapshotKeep + 2 {
		change()
		now = now.Add(snapshotEvery)
		path = step("due", true)
	}
	for _, path := range saved {
		if err := os.Remove(path); err != nil {
			t.Errorf("a file of another making: %v", err)
		}
	}
	files, _ := filepath.Glob(filepath.Join(s.dir, "*"))
	if len(files) != snapshotKeep || files[len(files)-1] != path {
		t.Errorf("%d files are kept: %v", len(files), files)
	}
}
