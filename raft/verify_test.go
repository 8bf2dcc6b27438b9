package raft_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"appliance/raft"
	"appliance/raft/rafttest"

	wal "github.com/hashicorp/raft-wal"
)

// lived returns the directory of a master that has lived: several segments, a shortened log, snapshots.
func lived(t *testing.T) string {
	t.Helper()
	defer func(size int) { wal.DefaultSegmentSize = size }(wal.DefaultSegmentSize)
	wal.DefaultSegmentSize = 16 << 10 // several segments, which are quick to copy
	c := rafttest.New(t, 1)
	c.Trailing = 150
	c.Up()
	m := c.Members[0]
	for i := range 300 {
		rafttest.Put(t, m.Node, fmt.Sprint(i, strings.Repeat("x", i)))
		if i == 100 || i == 200 || i == 250 {
			if err := m.Node.Snapshot(); err != nil {
				t.Fatal(err)
			}
		}
	}
	m.Stop(true)
	return m.Dir
}

func files(t *testing.T, dir string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			out = append(out, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// compacted is above the newest snapshot in lived: what is before it may be gone.
const compacted = 260

// print reads a directory, and fails the test if reading it twice differs.
func print(t *testing.T, dir string) (string, error) {
	t.Helper()
	var sm, again rafttest.Journal
	got, err := raft.Fingerprint(dir, &sm, compacted)
	got += strings.Join(sm.Text(), "\n")
	if err == nil {
		second, err2 := raft.Fingerprint(dir, &again, compacted)
		if second += strings.Join(again.Text(), "\n"); err2 != nil || second != got {
			t.Fatalf("opened once more it is something else: %v", err2)
		}
	}
	return got, err
}

// Whatever happens to a file, the node says so and names it, or what it holds is what it was.
func TestDamageOfAnyFileIsFound(t *testing.T) {
	dir := lived(t)
	t.Parallel() // not before: lived changes a global
	want, err := print(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	all := files(t, dir)
	if len(all) < 10 {
		t.Fatalf("only %v", all)
	}
	for _, name := range all {
		refused, healed := 0, 0
		try := func(what string, damage func(raw []byte) []byte) {
			t.Helper()
			copied := filepath.Join(t.TempDir(), "d")
			if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(copied, name)
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if raw = damage(raw); raw == nil {
				err = os.Remove(path)
			} else {
				err = os.WriteFile(path, raw, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := print(t, copied)
			var de *raft.DamageError
			switch {
			case errors.As(err, &de) && (de.Files[0].File == path || strings.HasPrefix(path, de.Files[0].File+"/")):
				refused++
			case err != nil:
				t.Errorf("%s of %s: %v", what, name, err)
			case got != want:
				t.Errorf("%s of %s went unnoticed", what, name)
			default:
				healed++
			}
		}
		try("loss", func([]byte) []byte { return nil })
		try("emptying", func([]byte) []byte { return []byte{} })
		for range 3 {
			try("cut", func(raw []byte) []byte { return raw[:rnd.IntN(len(raw))] })
		}
		for i := range 12 {
			try("flipped bit", func(raw []byte) []byte {
				at := rnd.IntN(len(raw))
				for i%2 == 0 && raw[at] == 0 && len(bytes.Trim(raw, "\x00")) > 0 { // half of them where something is
					at = rnd.IntN(len(raw))
				}
				raw[at] ^= 1 << rnd.IntN(8)
				return raw
			})
		}
		t.Logf("%-60s %3d refused %3d healed or without effect", name, refused, healed)
	}
}

// Which damage a master heals by itself, and which it leaves to the operator.
func TestDamageIsHealedOnlyWhereNothingIsLost(t *testing.T) {
	dir := lived(t)
	t.Parallel()
	match := func(t *testing.T, pattern string) []string {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(found) < 2 {
			t.Fatalf("%s: %v %v", pattern, found, err)
		}
		return found
	}
	for name, c := range map[string]struct {
		gone   func(t *testing.T) []string
		refuse string
	}{
		"newest snapshot, an older one and the log have it": {func(t *testing.T) []string { return match(t, "snapshots/*")[1:] }, ""},
		"all snapshots, the log begins later":               {func(t *testing.T) []string { return match(t, "snapshots/*") }, "snapshots"},
		"a segment that a snapshot covers":                  {func(t *testing.T) []string { return match(t, "log/*.wal")[:1] }, ""},
		"that segment and the snapshot":                     {func(t *testing.T) []string { return append(match(t, "log/*.wal")[:2], match(t, "snapshots/*")...) }, "log/"},
		"the last segment":                                  {func(t *testing.T) []string { w := match(t, "log/*.wal"); return w[len(w)-1:] }, "log/"},
		"database":                                          {func(*testing.T) []string { return []string{dir + "/log/wal-meta.db"} }, ""},
		"database and its copy": {func(*testing.T) []string {
			return []string{dir + "/log/wal-meta.db", dir + "/witness/log"}
		}, "log/wal-meta.db"},
		"whole log":         {func(*testing.T) []string { return []string{dir + "/log"} }, "log/"},
		"log and snapshots": {func(*testing.T) []string { return []string{dir + "/log", dir + "/snapshots"} }, "log/"},
		"second copies":     {func(*testing.T) []string { return []string{dir + "/witness"} }, ""},
		"nothing":           {func(*testing.T) []string { return nil }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			copied := filepath.Join(t.TempDir(), "d")
			if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			for _, path := range c.gone(t) {
				if err := os.RemoveAll(copied + strings.TrimPrefix(path, dir)); err != nil {
					t.Fatal(err)
				}
			}
			_, err := print(t, copied)
			if c.refuse == "" && err != nil {
				t.Error(err)
			}
			var de *raft.DamageError
			if c.refuse != "" && (!errors.As(err, &de) || !strings.HasPrefix(de.Files[0].File, filepath.Join(copied, c.refuse))) {
				t.Errorf("got %v", err)
			}
		})
	}
}
