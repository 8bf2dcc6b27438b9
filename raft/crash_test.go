package raft

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	hclog "github.com/hashicorp/go-hclog"
	hraft "github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
)

// content is every file below a directory.
func content(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		out[strings.TrimPrefix(path, dir+"/")] = raw
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// torn is the directory as a power cut during the change from before to after leaves it: of the segments
// any sector is the old one or the new one, everything else is as before.
func torn(t *testing.T, before, after map[string][]byte, r *rand.Rand, whole bool) string {
	t.Helper()
	dir := t.TempDir()
	for name, old := range before {
		raw := append([]byte(nil), old...)
		if strings.HasSuffix(name, ".wal") {
			for at := 0; at < len(raw); at += 512 {
				if whole || r.IntN(2) == 0 {
					copy(raw[at:min(at+512, len(raw))], after[name][at:])
				}
			}
			if whole {
				raw = after[name]
			}
		}
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, raw, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Power fails while entries are written, at every point of a segment's life: what was stored before is
// there, what was being written is there or not, and the log goes on.
func TestPowerCutWhileTheLogIsWritten(t *testing.T) {
	defer func(size int) { wal.DefaultSegmentSize = size }(wal.DefaultSegmentSize)
	wal.DefaultSegmentSize = 8 << 10
	dir := t.TempDir()
	d, err := openDisk(Config{Dir: dir}, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { d.close() }()
	r := rand.New(rand.NewPCG(1, 1))
	last := uint64(0)
	for range 40 {
		var batch []*hraft.Log
		for range 1 + r.IntN(4) {
			last++
			batch = append(batch, &hraft.Log{Index: last, Term: 1, Data: []byte(fmt.Sprint(last, strings.Repeat("x", r.IntN(600))))})
		}
		before := content(t, dir)
		if err := d.log.StoreLogs(batch); err != nil {
			t.Fatal(err)
		}
		after := content(t, dir)
		if err := d.checked.LogStore.DeleteRange(1<<40, 1<<40); err != nil { // only waits for a rotation
			t.Fatal(err)
		}
		for _, whole := range []bool{true, false, false} {
			again(t, torn(t, before, after, r, whole), batch[0].Index-1, last)
		}
	}
	if sealed, _ := filepath.Glob(filepath.Join(dir, "log", "*.wal")); len(sealed) < 4 {
		t.Errorf("only %d segments", len(sealed))
	}
}

// again opens what a crash has left and looks at it: entries up to stored must be there, up to last may.
func again(t *testing.T, dir string, stored, last uint64) {
	t.Helper()
	d, err := openDisk(Config{Dir: dir}, hclog.NewNullLogger())
	if err != nil {
		t.Fatalf("after entry %d: %v", stored, err)
	}
	defer d.close()
	at, err := d.log.LastIndex()
	if err != nil || at < stored || at > last {
		t.Fatalf("last entry %d, %v; %d are stored, %d were being written", at, err, stored, last)
	}
	var l hraft.Log
	for i := uint64(1); i <= at; i++ {
		if err := d.log.GetLog(i, &l); err != nil || !strings.HasPrefix(string(l.Data), fmt.Sprint(i)) {
			t.Fatalf("entry %d: %q, %v", i, l.Data, err)
		}
	}
	for range 2 {
		at++
		if err := d.log.StoreLog(&hraft.Log{Index: at, Term: 2, Data: []byte("next")}); err != nil {
			t.Fatalf("after the power cut the log takes no entry %d: %v", at, err)
		}
	}
}
