package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"

	"appliance/node/needs"

	"appliance/nfs/proto"

	"pgregory.net/rapid"
)

func open(t testing.TB, dir string, o Options) *Volume {
	t.Helper()
	if o.Reserve == 0 {
		o.Reserve = 1 << 20
	}
	v, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// crash drops a volume like SIGKILL does: what was written to files stays, queued records are lost.
func crash(v *Volume) {
	v.stop()
	<-v.stopped
	v.wal.fail(errors.New("crashed"))
	v.wal.close()
	v.files.close()
}

func create(t testing.TB, v *Volume, name string) Ino {
	t.Helper()
	a, lsn, err := v.Create(Root, name, Record{Kind: proto.Reg, Set: proto.SetAttr{Mode: 0o644}})
	if err != nil {
		t.Fatal(err)
	}
	wait(t, v, lsn)
	return a.Ino
}

func wait(t testing.TB, v *Volume, lsn uint64) {
	t.Helper()
	if err := v.Wait(lsn); err != nil {
		t.Fatal(err)
	}
}

func content(t testing.TB, v *Volume, ino Ino) []byte {
	t.Helper()
	a, err := v.Attr(ino)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, a.Size+10)
	n, eof, _, err := v.Read(ino, 0, buf)
	if err != nil || !eof {
		t.Fatalf("eof %v, %v", eof, err)
	}
	return buf[:n]
}

// machine compares a volume, crashed and checkpointed at random, with a plain model. Every
// operation is waited for, so all must survive.
type machine struct {
	dir   string
	v     *Volume
	files map[string]Ino // names in the root directory
	data  map[Ino][]byte
	links map[Ino]int
	rt    *rapid.T
}

func (m *machine) name(t *rapid.T) string {
	return fmt.Sprintf("n%d", rapid.IntRange(0, 5).Draw(t, "name"))
}

func (m *machine) check(t *rapid.T, lsn uint64, err error, want syscall.Errno) bool {
	if want != 0 {
		if !errors.Is(err, want) {
			t.Fatalf("got %v, want %v", err, want)
		}
		return false
	}
	if err == nil {
		err = m.v.Wait(lsn)
	}
	if err != nil {
		t.Fatal(err)
	}
	return true
}

func when(cond bool, e syscall.Errno) syscall.Errno {
	if cond {
		return e
	}
	return 0
}

func (m *machine) Create(t *rapid.T) {
	n := m.name(t)
	_, exists := m.files[n]
	a, lsn, err := m.v.Create(Root, n, Record{Kind: proto.Reg})
	if m.check(t, lsn, err, when(exists, syscall.EEXIST)) {
		m.files[n], m.data[a.Ino], m.links[a.Ino] = a.Ino, nil, 1
	}
}

func (m *machine) unlink(ino Ino) {
	if m.links[ino]--; m.links[ino] == 0 {
		delete(m.links, ino)
		delete(m.data, ino)
	}
}

func (m *machine) Remove(t *rapid.T) {
	n := m.name(t)
	ino, exists := m.files[n]
	lsn, err := m.v.Remove(Root, n, Origin{})
	if m.check(t, lsn, err, when(!exists, syscall.ENOENT)) {
		delete(m.files, n)
		m.unlink(ino)
	}
}

func (m *machine) Rename(t *rapid.T) {
	a, b := m.name(t), m.name(t)
	ino, exists := m.files[a]
	old, replaced := m.files[b]
	lsn, err := m.v.Rename(Root, a, Root, b, Origin{})
	if m.check(t, lsn, err, when(!exists, syscall.ENOENT)) && ino != old {
		delete(m.files, a)
		m.files[b] = ino
		if replaced {
			m.unlink(old)
		}
	}
}

func (m *machine) Link(t *rapid.T) {
	a, b := m.name(t), m.name(t)
	ino, exists := m.files[a]
	if !exists {
		t.Skip("nothing to link")
	}
	_, taken := m.files[b]
	lsn, err := m.v.Link(ino, Root, b, Origin{})
	if m.check(t, lsn, err, when(taken, syscall.EEXIST)) {
		m.files[b] = ino
		m.links[ino]++
	}
}

func (m *machine) pick(t *rapid.T) Ino {
	ino, ok := m.files[m.name(t)]
	if !ok {
		t.Skip("no such file")
	}
	return ino
}

func (m *machine) Write(t *rapid.T) {
	ino := m.pick(t)
	off, p := m.some(t)
	at := uint64(off)
	if rapid.Bool().Draw(t, "append") {
		at, off = proto.AppendOffset, len(m.data[ino])
	}
	lsn, err := m.v.Write(ino, at, p, true, Origin{})
	m.check(t, lsn, err, 0)
	m.data[ino] = written(m.data[ino], off, p)
}

// some data for some place, in one block, over the end of one, or over several.
func (m *machine) some(t *rapid.T) (off int, p []byte) {
	off = rapid.IntRange(0, 300).Draw(t, "off") * rapid.SampledFrom([]int{1, 1, 40}).Draw(t, "far")
	p = rapid.SliceOfN(rapid.Byte(), 1, 200).Draw(t, "data")
	return off, bytes.Repeat(p, rapid.SampledFrom([]int{1, 1, 50}).Draw(t, "times"))
}

func written(d []byte, off int, p []byte) []byte {
	d = slices.Clone(d)
	if grow := off + len(p) - len(d); grow > 0 {
		d = append(d, make([]byte, grow)...)
	}
	copy(d[off:], p)
	return d
}

func (m *machine) Truncate(t *rapid.T) {
	ino := m.pick(t)
	n := rapid.IntRange(0, 400).Draw(t, "size") * rapid.SampledFrom([]int{1, 1, 30}).Draw(t, "far")
	lsn, err := m.v.SetAttr(ino, proto.SetAttr{Mask: proto.Bits(proto.AttrSize), Size: uint64(n)}, Origin{})
	m.check(t, lsn, err, 0)
	d := m.data[ino]
	m.data[ino] = append(d[:min(n, len(d)):min(n, len(d))], make([]byte, max(0, n-len(d)))...)
}

func (m *machine) Checkpoint(t *rapid.T) {
	if err := m.v.Checkpoint(); err != nil {
		t.Fatal(err)
	}
}

// Crash also leaves an unstable write in a data file, whose record is lost unless it had to be durable first, and a
// torn record in the log.
func (m *machine) Crash(t *rapid.T) {
	var ino Ino
	off, p := m.some(t)
	for _, i := range m.files {
		ino = max(ino, i)
	}
	if ino != 0 {
		m.v.Write(ino, uint64(off), p, false, Origin{})
	}
	crash(m.v)
	segs, err := segments(m.dir)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(segs[len(segs)-1].path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.Write(rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "torn"))
	f.Close()
	m.reopen(t)
	if ino != 0 {
		m.adopt(t, ino, written(m.data[ino], off, p))
	}
}

// adopt takes over what is left of a write that was not waited for: all of it if its record was durable, else any of
// it, in a file of the old size.
func (m *machine) adopt(t *rapid.T, ino Ino, want []byte) {
	buf, old := make([]byte, len(want)+1), m.data[ino]
	n, _, _, err := m.v.Read(ino, 0, buf)
	if err != nil || n != len(want) && n != len(old) {
		t.Fatalf("%d bytes, %v, want %d or %d", n, err, len(old), len(want))
	}
	for i, b := range buf[:n] {
		if b != want[i] && (i >= len(old) || b != old[i]) {
			t.Fatalf("byte %d is %d, neither the old %v nor the new %d", i, b, old, want[i])
		}
	}
	m.data[ino] = buf[:n]
}

func (m *machine) Close(t *rapid.T) {
	if err := m.v.Close(); err != nil {
		t.Fatal(err)
	}
	m.reopen(t)
}

func (m *machine) reopen(t *rapid.T) {
	v, err := Open(m.dir, Options{Reserve: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	m.v = v
}

func (m *machine) Check(t *rapid.T) {
	es, _, err := m.v.Readdir(Root, 0, 100)
	if err != nil || len(es) != len(m.files) {
		t.Fatalf("%v, %v, want %v", es, err, m.files)
	}
	var sum uint64
	for ino := range m.data {
		sum += uint64(len(m.data[ino]))
	}
	for i, e := range es {
		a, err := m.v.Attr(e.Ino)
		if m.files[e.Name] != e.Ino || err != nil || int(a.Nlink) != m.links[e.Ino] || i > 0 && es[i-1].Cookie >= e.Cookie {
			t.Fatalf("%+v %+v %v", e, a, err)
		}
		buf := make([]byte, a.Size+1)
		n, _, _, err := m.v.Read(e.Ino, 0, buf)
		if err != nil || !bytes.Equal(buf[:n], m.data[e.Ino]) {
			t.Fatalf("%s: %q, %v, want %q", e.Name, buf[:n], err, m.data[e.Ino])
		}
	}
	if u := m.v.Usage(); u.Bytes != sum || u.Inodes != uint64(len(m.data)+1) {
		t.Fatalf("%+v, want %d bytes", u, sum)
	}
}

func TestVolumeAgainstModel(t *testing.T) {
	base, err := os.MkdirTemp("/dev/shm", "volume") // in memory: the crashes here are of the process
	if err != nil {
		base = t.TempDir()
	}
	defer os.RemoveAll(base)
	var n atomic.Int64
	rapid.Check(t, func(rt *rapid.T) {
		m := &machine{dir: filepath.Join(base, fmt.Sprint(n.Add(1))), files: map[string]Ino{}, data: map[Ino][]byte{}, links: map[Ino]int{}}
		m.reopen(rt)
		defer func() { crash(m.v) }()
		rt.Repeat(map[string]func(*rapid.T){"create": m.Create, "remove": m.Remove, "rename": m.Rename, "link": m.Link,
			"write": m.Write, "truncate": m.Truncate, "checkpoint": m.Checkpoint, "crash": m.Crash, "close": m.Close, "": m.Check})
	})
}

func TestStaleBytesDoNotComeBack(t *testing.T) {
	dir := t.TempDir()
	v := open(t, dir, Options{})
	ino := create(t, v, "f")
	if _, err := v.Write(ino, 0, []byte("never logged"), false, Origin{}); err != nil {
		t.Fatal(err)
	}
	crash(v)
	v = open(t, dir, Options{})
	defer v.Close()
	lsn, err := v.SetAttr(ino, proto.SetAttr{Mask: proto.Bits(proto.AttrSize), Size: 12}, Origin{})
	if err != nil {
		t.Fatal(err)
	}
	wait(t, v, lsn)
	if got := content(t, v, ino); !bytes.Equal(got, make([]byte, 12)) {
		t.Fatalf("got %q", got)
	}
}

func TestDamagedMiddleIsRefused(t *testing.T) {
	dir := t.TempDir()
	v := open(t, dir, Options{})
	for i := range 10 {
		create(t, v, fmt.Sprint(i))
	}
	v.mu.Lock()
	v.wal.rotate() // a second segment, without a checkpoint
	v.mu.Unlock()
	create(t, v, "later")
	crash(v)
	segs, _ := segments(dir)
	b, err := os.ReadFile(segs[0].path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	os.WriteFile(segs[0].path, b, 0o600)
	if _, err := Open(dir, Options{}); err == nil {
		t.Fatal("a volume with a hole in its log was opened")
	} else {
		t.Log(err)
	}
}

func TestUnlinkedStaysWhilePinned(t *testing.T) {
	dir := t.TempDir()
	v := open(t, dir, Options{})
	ino := create(t, v, "f")
	v.Pin(ino)
	lsn, _ := v.Write(ino, 0, []byte("x"), true, Origin{})
	wait(t, v, lsn)
	lsn, err := v.Remove(Root, "f", Origin{})
	if err != nil {
		t.Fatal(err)
	}
	wait(t, v, lsn)
	crash(v)
	v = open(t, dir, Options{}) // an orphan until grace is over
	if got := content(t, v, ino); string(got) != "x" {
		t.Fatalf("got %q", got)
	}
	if err := v.FreeOrphans(); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Attr(ino); !errors.Is(err, syscall.ESTALE) {
		t.Fatalf("got %v", err)
	}
	v.emptyTrash()
	if _, err := os.Stat(v.files.path(ino)); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("data file: %v", err)
	}
	v.Close()
}

func TestFullDiskChangesNothing(t *testing.T) {
	dir := needs.Disk(t, "16m")
	v := open(t, dir, Options{Reserve: 4 << 20})
	ino := create(t, v, "f")
	block := bytes.Repeat([]byte("x"), 256<<10)
	size := 0
	for {
		if size > 3<<20 {
			block = block[:4<<10]
		}
		lsn, err := v.Write(ino, uint64(size), block, true, Origin{})
		if errors.Is(err, syscall.ENOSPC) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		wait(t, v, lsn)
		size += len(block)
	}
	if size < 2<<20 || len(content(t, v, ino)) != size {
		t.Fatalf("%d bytes, want %d", len(content(t, v, ino)), size)
	}
	made := 0
	for {
		_, lsn, err := v.Create(Root, fmt.Sprint("small", made), Record{Kind: proto.Reg})
		if errors.Is(err, syscall.ENOSPC) {
			break
		}
		if err != nil || made > 1000 {
			t.Fatal(made, err)
		}
		wait(t, v, lsn)
		made++
	}
	if es, _, _ := v.Readdir(Root, 0, 2000); len(es) != made+1 {
		t.Fatalf("%d names, want %d", len(es), made+1)
	}
	lsn, err := v.Remove(Root, "f", Origin{}) // making room must always work
	if err != nil {
		t.Fatal(err)
	}
	wait(t, v, lsn)
	v.emptyTrash()
	if err := v.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	create(t, v, "g")
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestQuota(t *testing.T) {
	v := open(t, t.TempDir(), Options{MaxBytes: 100})
	defer v.Close()
	ino := create(t, v, "f")
	if _, err := v.Write(ino, 0, make([]byte, 101), false, Origin{}); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if _, err := v.Write(ino, 0, make([]byte, 100), false, Origin{}); err != nil {
		t.Fatal(err)
	}
}

// brokenDisk fails fsync or writing once told to.
type brokenDisk struct {
	syncFile
	broken *atomic.Bool
}

func (b brokenDisk) Sync() error {
	if b.broken.Load() {
		return syscall.EIO
	}
	return b.syncFile.Sync()
}

func TestFsyncFailureStops(t *testing.T) {
	dir := t.TempDir()
	var broken atomic.Bool
	v := open(t, dir, Options{openSegment: func(p string) (syncFile, error) {
		f, err := openSegment(p)
		return brokenDisk{f, &broken}, err
	}})
	create(t, v, "good")
	broken.Store(true)
	_, lsn, err := v.Create(Root, "bad", Record{Kind: proto.Reg})
	if err == nil {
		err = v.Wait(lsn)
	}
	if !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.EIO) {
		t.Fatalf("got %v", err)
	}
	broken.Store(false)
	if _, _, err := v.Create(Root, "later", Record{Kind: proto.Reg}); !errors.Is(err, ErrFailed) {
		t.Fatalf("a stopped volume goes on: %v", err)
	}
	v.Close()
	v = open(t, dir, Options{})
	defer v.Close()
	if _, _, err := v.Lookup(Root, "good"); err != nil {
		t.Fatal(err)
	}
}

func FuzzDecodeRecord(f *testing.F) {
	for _, r := range []Record{{Op: OpWrite, Data: []byte("x")}, {Op: OpCreate, Name: "n"}, {Op: OpClient, Client: "c"}, {Op: OpFree}, {Op: OpSetAttr}, {Op: OpForget}} {
		var e = encoded(&r)
		f.Add(e)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRecord(b)
		if err != nil {
			return
		}
		if again, err := decodeRecord(encoded(r)); err != nil || again.Op != r.Op || again.Name != r.Name {
			t.Fatalf("%+v comes back as %+v, %v", r, again, err)
		}
		NewTable(0o755, 0, 0, 0).Apply(r) // must not panic, whatever it says
	})
}

func FuzzDecodeTable(f *testing.F) {
	f.Add(NewTable(0o755, 0, 0, 0).Encode())
	f.Fuzz(func(t *testing.T, b []byte) { DecodeTable(b) })
}

func BenchmarkDurableWrite4k(b *testing.B) {
	v := open(b, b.TempDir(), Options{})
	defer v.Close()
	ino := create(b, v, "f")
	data := make([]byte, 4096)
	for i := 0; b.Loop(); i++ {
		lsn, err := v.Write(ino, uint64(i%1000)*4096, data, true, Origin{})
		if err != nil {
			b.Fatal(err)
		}
		wait(b, v, lsn)
	}
}
