package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"appliance/nfs/proto"
)

// filled opens a volume with a file of some blocks that a checkpoint has seen.
func filled(t *testing.T, dir string) (*Volume, Ino, []byte) {
	t.Helper()
	v := open(t, dir, Options{})
	ino, data := create(t, v, "f"), bytes.Repeat([]byte("0123456789abcdef"), 3*sumBlock/16)
	data = append(data, "the last block is short"...)
	put(t, v, ino, 0, data)
	if err := v.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	return v, ino, data
}

func put(t *testing.T, v *Volume, ino Ino, off uint64, p []byte) {
	t.Helper()
	lsn, err := v.Write(ino, off, p, true, Origin{})
	if err != nil {
		t.Fatal(err)
	}
	wait(t, v, lsn)
}

func toSize(n uint64) proto.SetAttr {
	return proto.SetAttr{Mask: proto.Bits(proto.AttrSize), Size: n}
}

func resize(t *testing.T, v *Volume, ino Ino, n uint64) {
	t.Helper()
	lsn, err := v.SetAttr(ino, toSize(n), Origin{})
	if err != nil {
		t.Fatal(err)
	}
	wait(t, v, lsn)
}

func flip(t *testing.T, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 4
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

func TestDamageOfDataIsFound(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, data, sums string)
		good   []int // blocks
		bad    []int
	}{
		{"a bit of a block", func(t *testing.T, data, _ string) { flip(t, data, sumBlock+77) }, []int{0, 2, 3}, []int{1}},
		{"a bit of the last block", func(t *testing.T, data, _ string) { flip(t, data, 3*sumBlock+2) }, []int{0, 1, 2}, []int{3}},
		{"a bit of a sum", func(t *testing.T, _, sums string) { flip(t, sums, 2*sumLen) }, []int{0, 1, 3}, []int{2}},
		{"the file is cut", func(t *testing.T, data, _ string) {
			if err := os.Truncate(data, sumBlock); err != nil {
				t.Fatal(err)
			}
		}, []int{0}, []int{1, 2, 3}},
		{"the file is gone", func(t *testing.T, data, _ string) {
			if err := os.Remove(data); err != nil {
				t.Fatal(err)
			}
		}, nil, []int{0, 1, 2, 3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			v, ino, data := filled(t, dir)
			file, sums := v.files.path(ino), v.files.sumPath(ino)
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
			c.damage(t, file, sums)
			v = open(t, dir, Options{})
			defer func() { v.Close() }()
			read := func(b int) error {
				want := data[b*sumBlock : min((b+1)*sumBlock, len(data))]
				for _, r := range [][2]int{{0, len(want)}, {5, 10}} {
					buf := make([]byte, r[1])
					_, _, _, err := v.Read(ino, uint64(b*sumBlock+r[0]), buf)
					if err != nil {
						if !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), file) {
							t.Errorf("block %d: %v", b, err)
						}
						if !bytes.Equal(buf, make([]byte, len(buf))) {
							t.Errorf("block %d: damaged bytes are handed out", b)
						}
						return err
					}
					if !bytes.Equal(buf, want[r[0]:r[0]+r[1]]) {
						t.Errorf("block %d: %q", b, buf)
					}
				}
				return nil
			}
			for _, b := range c.good {
				if err := read(b); err != nil {
					t.Errorf("good block %d: %v", b, err)
				}
			}
			for _, b := range c.bad {
				if read(b) == nil {
					t.Errorf("block %d: the damage is not found", b)
				}
				if _, err := v.Write(ino, uint64(b*sumBlock+3), []byte("x"), true, Origin{}); !errors.Is(err, syscall.EIO) {
					t.Errorf("block %d: a write of a part makes the damage good: %v", b, err)
				}
			}
			if d := v.Damaged(); len(d) != 1 || d[0].File != file {
				t.Errorf("damaged: %v", d)
			}
			if v.Err() != nil {
				t.Fatal("one damaged file stops the volume:", v.Err())
			}
			resize(t, v, ino, 0)
			if err := v.Checkpoint(); err != nil {
				t.Fatal(err)
			}
			resize(t, v, ino, 2*sumBlock)
			if got := content(t, v, ino); !bytes.Equal(got, make([]byte, 2*sumBlock)) {
				t.Error("emptied and grown again it is not zero")
			}
			put(t, v, ino, 0, data) // from a backup
			if err := v.Checkpoint(); err != nil {
				t.Fatal(err)
			}
			if got := content(t, v, ino); !bytes.Equal(got, data) {
				t.Error("written again, it is not whole")
			}
			if d := v.Damaged(); len(d) > 0 {
				t.Errorf("still damaged: %v", d)
			}
		})
	}
}

// A file is listed until each of its damaged blocks is mended, in whatever order.
func TestEachDamagedBlockIsRemembered(t *testing.T) {
	dir := t.TempDir()
	v := open(t, dir, Options{})
	ino := create(t, v, "f")
	put(t, v, ino, 0, make([]byte, 40*sumBlock))
	file := v.files.path(ino)
	v.Close()
	for b := range int64(40) {
		flip(t, file, b*sumBlock)
	}
	v = open(t, dir, Options{})
	defer func() { v.Close() }()
	read := func(blocks ...uint64) {
		for _, b := range blocks {
			if _, _, _, err := v.Read(ino, b*sumBlock, make([]byte, 1)); !errors.Is(err, syscall.EIO) {
				t.Errorf("block %d: %v", b, err)
			}
		}
	}
	read(3, 30, 7, 3)
	for _, c := range []struct {
		mend uint64
		want string // the rest
	}{{30, "bytes at 12288, 28672 are"}, {3, "bytes at 28672 are"}, {7, ""}} {
		put(t, v, ino, c.mend*sumBlock, make([]byte, sumBlock))
		d := v.Damaged()
		if c.want == "" && len(d) > 0 || c.want != "" && (len(d) != 1 || d[0].File != file || !strings.Contains(d[0].Why, c.want)) {
			t.Errorf("block %d is mended: %v", c.mend, d)
		}
	}
	for b := range uint64(27) {
		if b != 3 && b != 7 {
			read(b)
		}
	}
	f := v.files.acquire(ino)
	defer v.files.release(f)
	if n := len(v.files.damagedBlocks(f)); n != maxDamageOfFile {
		t.Errorf("%d blocks are remembered", n)
	}
}

func TestCutOffDamageIsNotKept(t *testing.T) {
	dir := t.TempDir()
	v, ino, data := filled(t, dir)
	file := v.files.path(ino)
	v.Close()
	flip(t, file, sumBlock+77)
	v = open(t, dir, Options{})
	defer func() { v.Close() }()
	if _, err := v.SetAttr(ino, toSize(sumBlock+100), Origin{}); !errors.Is(err, syscall.EIO) {
		t.Errorf("cut within the damaged block: %v", err)
	}
	for _, n := range []uint64{sumBlock, sumBlock / 2, 10 * sumBlock} {
		resize(t, v, ino, n)
		if err := v.Checkpoint(); err != nil {
			t.Fatal(err)
		}
	}
	want := append(bytes.Clone(data[:sumBlock/2]), make([]byte, 10*sumBlock-sumBlock/2)...)
	for range 2 {
		if got := content(t, v, ino); !bytes.Equal(got, want) {
			t.Error("what was cut off and grown again is not zero, or the rest is not what it was")
		}
		v.Close()
		v = open(t, dir, Options{})
	}
}

// A release without sums writes and checkpoints: the sums that it leaves behind are not believed.
func TestSumsOfBeforeADowngradeAreNotBelieved(t *testing.T) {
	dir := t.TempDir()
	v, ino, _ := filled(t, dir)
	v.Close()
	was, err := os.ReadFile(filepath.Join(dir, sumsName))
	if err != nil {
		t.Fatal(err)
	}
	v = open(t, dir, Options{})
	put(t, v, ino, sumBlock, []byte("by the older release"))
	path, sums := v.files.path(ino), v.files.sumPath(ino)
	old, err := os.ReadFile(sums)
	if err != nil {
		t.Fatal(err)
	}
	v.Close()
	for p, b := range map[string][]byte{filepath.Join(dir, sumsName): was, sums: old} {
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	v = open(t, dir, Options{})
	defer v.Close()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := content(t, v, ino); !bytes.Equal(got, data) {
		t.Error("not what the older release wrote")
	}
}

// While a checkpoint makes the sum of a block, the next write of it is in the log first, too.
func TestWriteBesideACheckpointIsInTheLogFirst(t *testing.T) {
	v, ino, _ := filled(t, t.TempDir())
	defer v.Close()
	for _, c := range []struct {
		name string
		off  uint64
		want bool
	}{{"a block with a sum", 0, true}, {"once more", 1, false}, {"a block without one", 9 * sumBlock, false}} {
		lsn, err := v.Write(ino, c.off, []byte("changed"), false, Origin{})
		if got := v.wal.durable >= lsn; err != nil || got != c.want {
			t.Errorf("%s: durable at once: %v, %v", c.name, got, err)
		}
	}
	dirty := v.files.takeDirty()
	for _, off := range []uint64{0, 9 * sumBlock} {
		if lsn, err := v.Write(ino, off, []byte("again"), false, Origin{}); err != nil || v.wal.durable < lsn {
			t.Error("a sum that is being made could be of what is lost", err)
		}
	}
	if err := v.files.sync(dirty); err != nil {
		t.Fatal(err)
	}
}

// A writer finds a block that has changed already, and before it logs its record a checkpoint takes the block over.
func TestCheckpointBetweenGuardAndRecord(t *testing.T) {
	dir := t.TempDir()
	v := open(t, dir, Options{})
	ino := create(t, v, "f")
	put(t, v, ino, 0, []byte("line one\n"))
	f := v.files.acquire(ino)
	f.mu.Lock()
	early, err := v.guard(ino, f, 9, 6)
	if early || err != nil {
		t.Fatal("a changed block waits", err)
	}
	done := make(chan error, 1)
	go func() { done <- v.Checkpoint() }()
	for !v.files.isClosing(f, 0) {
		time.Sleep(time.Millisecond)
	}
	lsn, err := v.writeGuarded(ino, f, 9, []byte("second"), false, early, Origin{})
	if err != nil || v.wal.durable < lsn {
		t.Error("the record of a block that gets a sum is not in the log before the data", err)
	}
	unsaved := func() { // the sum is of this, or this comes after the sum
		late, err := v.guard(ino, f, 9, 6)
		if err == nil {
			lsn, err = v.writeGuarded(ino, f, 9, []byte("unsaved"), false, late, Origin{})
		}
		if err != nil || late || v.wal.durable >= lsn {
			t.Error("the next write waits, too", err)
		}
	}
	unsaved()
	f.mu.Unlock()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	unsaved()
	f.mu.Unlock()
	v.files.release(f)
	crash(v)
	v = open(t, dir, Options{})
	defer v.Close()
	if got := content(t, v, ino); !bytes.HasPrefix(got, []byte("line one\n")) {
		t.Errorf("%q", got)
	}
}

// A checkpoint of more files than may be open leaves open what was open, and syncs each directory once.
func TestCheckpointOfManyFiles(t *testing.T) {
	v := open(t, t.TempDir(), Options{})
	defer func() { v.Close() }()
	const many = maxOpenFiles + 90
	var inos []Ino
	for i := range many {
		inos = append(inos, create(t, v, fmt.Sprint("f", i)))
		if _, err := v.Write(inos[i], 0, []byte("x"), false, Origin{}); err != nil {
			t.Fatal(err)
		}
	}
	synced := map[string]int{}
	v.files.syncDir = func(d string) error { synced[d]++; return syncDir(d) }
	before := descriptors(t, v)
	if err := v.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	if n := descriptors(t, v); n > before || n != v.files.open {
		t.Errorf("%d descriptors, %d before, %d counted", n, before, v.files.open)
	}
	for d, n := range synced {
		if n != 1 {
			t.Errorf("%s is synced %d times", d, n)
		}
	}
	for _, d := range []string{v.files.sumDir, filepath.Dir(v.files.path(inos[0])), filepath.Dir(v.files.sumPath(inos[0]))} {
		if synced[d] == 0 {
			t.Errorf("%s is not synced", d)
		}
	}
	for _, ino := range inos {
		content(t, v, ino)
	}
	if n := descriptors(t, v); n > maxOpenFiles || n != v.files.open {
		t.Errorf("all read: %d descriptors, %d counted", n, v.files.open)
	}
}

// Space for the sums may be missing when the checkpoint wants to write them: they are made by the next one.
func TestSumsWithoutSpaceComeLater(t *testing.T) {
	dir := t.TempDir()
	v, ino, data := filled(t, dir)
	put(t, v, ino, 0, []byte("changed"))
	dirty := v.files.takeDirty()
	f := dirty[ino]
	f.once.Lock()
	good := f.sums
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.sums = full
	f.once.Unlock()
	if err := v.files.sync(dirty); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	full.Close()
	f.sums = good
	copy(data, "changed")
	for range 2 {
		if got := content(t, v, ino); !bytes.Equal(got, data) {
			t.Error("not what was written")
		}
		if err := v.Checkpoint(); err != nil {
			t.Fatal(err)
		}
	}
	file := v.files.path(ino)
	v.Close()
	flip(t, file, 3)
	v = open(t, dir, Options{})
	defer v.Close()
	if _, _, _, err := v.Read(ino, 0, make([]byte, 10)); !errors.Is(err, syscall.EIO) {
		t.Error("damage after that is not found:", err)
	}
}

// Writers, stable and not, beside checkpoints, until the process is killed: what is there afterwards is never taken
// for damage, whether its last records are in the log or not.
func TestKillsLookLikeNoDamage(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "volume")
	if err != nil {
		dir = t.TempDir()
	}
	defer os.RemoveAll(dir)
	v := open(t, dir, Options{})
	inos := []Ino{create(t, v, "a"), create(t, v, "b")}
	for round := range uint64(25) {
		var writers sync.WaitGroup
		for w := range uint64(4) {
			r := rand.New(rand.NewPCG(round, w))
			writers.Go(func() {
				for {
					ino, off := inos[r.IntN(2)], uint64(r.IntN(12*sumBlock))
					p := bytes.Repeat([]byte{byte(r.Uint32())}, 1+r.IntN(2*sumBlock))
					lsn, err := v.Write(ino, off, p, false, Origin{})
					if r.IntN(20) == 0 {
						lsn, err = v.SetAttr(ino, toSize(uint64(r.IntN(14*sumBlock))), Origin{})
					}
					if err == nil && r.IntN(8) == 0 {
						err = v.Wait(lsn)
					}
					if errors.Is(err, syscall.EIO) {
						t.Error(err)
					}
					if err != nil {
						return
					}
				}
			})
		}
		for range 1 + round%4 {
			if err := v.Checkpoint(); err != nil {
				t.Error(err)
			}
		}
		v.stop()
		<-v.stopped
		v.wal.fail(errors.New("killed"))
		writers.Wait()
		v.wal.close()
		v.files.close()
		v = open(t, dir, Options{})
		for _, ino := range inos {
			content(t, v, ino)
		}
	}
	v.Close()
}
