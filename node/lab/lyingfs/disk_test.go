package lyingfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"appliance/node/needs"
)

func lying(t testing.TB) (point, address string) {
	t.Helper()
	needs.Root(t)
	needs.Device(t, "/dev/fuse")
	root, point := t.TempDir(), t.TempDir()
	address = "@lyingfs-" + filepath.Base(filepath.Dir(point)) + t.Name()
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- Serve(root, point, address, func() { close(ready) }) }()
	select {
	case err := <-done:
		t.Fatal(err)
	case <-ready:
	}
	t.Cleanup(func() {
		set(t, address, Behaviour{})
		if err := syscall.Unmount(point, 0); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return point, address
}

func set(t testing.TB, address string, b Behaviour) uint64 {
	t.Helper()
	hits, err := Set(address, b)
	if err != nil {
		t.Fatal(err)
	}
	return hits
}

func save(path, text string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, werr := f.WriteString(text)
	return errors.Join(werr, f.Sync(), f.Close())
}

func TestDisk(t *testing.T) {
	point, address := lying(t)
	path := filepath.Join(point, "a")
	if err := save(path, "first"); err != nil {
		t.Fatal(err)
	}

	set(t, address, Behaviour{Full: true})
	if err := save(path, "second"); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a write to a full disk: %v", err)
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(point, &st); err != nil || st.Bavail != 0 {
		t.Errorf("a full disk says that %d blocks are free, %v", st.Bavail, err)
	}
	if text, err := os.ReadFile(path); string(text) != "first" {
		t.Errorf("a full disk reads %q, %v", text, err)
	}

	const delay = 150 * time.Millisecond
	set(t, address, Behaviour{Fsync: delay})
	began := time.Now()
	if err := save(path, "third"); err != nil || time.Since(began) < delay {
		t.Errorf("a slow disk took %s, %v", time.Since(began), err)
	}

	for name, end := range map[string]func(){
		"told":     func() { set(t, address, Behaviour{}) },
		"deadline": nil,
	} {
		b := Behaviour{Hung: true}
		if end == nil {
			b.Until = time.Now().Add(200 * time.Millisecond)
		}
		set(t, address, b)
		saved := make(chan error, 1)
		go func() { saved <- save(path, "fourth") }()
		select {
		case err := <-saved:
			t.Errorf("%s: a hung disk answered %v", name, err)
		case <-time.After(100 * time.Millisecond):
		}
		if end != nil {
			end()
		}
		select {
		case err := <-saved:
			if err != nil {
				t.Errorf("%s: after the end: %v", name, err)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: the disk hangs on", name)
		}
	}
	if hits := set(t, address, Behaviour{}); hits < 4 {
		t.Errorf("%d hits are counted", hits)
	}
}

// TestHungDiskHangsForAll looks at each operation in a directory of its own: they
// would wait for one another's locks.
func TestHungDiskHangsForAll(t *testing.T) {
	point, address := lying(t)
	old := bytes.Repeat([]byte("old "), 4096)
	in := func(dir, name string) string { return filepath.Join(point, dir, name) }
	uncached := func(path string) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
			return err
		}
		text, err := io.ReadAll(f)
		if err == nil && !bytes.Equal(text, old) {
			err = fmt.Errorf("read %.20q", text)
		}
		return err
	}
	hangs := map[string]func(dir string) error{
		"create":   func(dir string) error { return os.WriteFile(in(dir, "new"), nil, 0o600) },
		"mkdir":    func(dir string) error { return os.Mkdir(in(dir, "new"), 0o700) },
		"rmdir":    func(dir string) error { return os.Remove(in(dir, "dir")) },
		"symlink":  func(dir string) error { return os.Symlink("old", in(dir, "new")) },
		"link":     func(dir string) error { return os.Link(in(dir, "old"), in(dir, "new")) },
		"mknod":    func(dir string) error { return syscall.Mkfifo(in(dir, "new"), 0o600) },
		"rename":   func(dir string) error { return os.Rename(in(dir, "old"), in(dir, "new")) },
		"unlink":   func(dir string) error { return os.Remove(in(dir, "old")) },
		"chmod":    func(dir string) error { return os.Chmod(in(dir, "old"), 0o640) },
		"truncate": func(dir string) error { return os.Truncate(in(dir, "old"), 3) },
		"utimes":   func(dir string) error { return os.Chtimes(in(dir, "old"), time.Now(), time.Now()) },
		"read":     func(dir string) error { return uncached(in(dir, "old")) },
	}
	for dir := range hangs {
		if err := errors.Join(os.MkdirAll(in(dir, "dir"), 0o700), os.WriteFile(in(dir, "old"), old, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	cached := filepath.Join(point, "cached")
	if err := os.WriteFile(cached, old, 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(cached); err != nil || !bytes.Equal(text, old) {
		t.Fatal(err)
	}

	set(t, address, Behaviour{Hung: true, Until: time.Now().Add(10 * time.Second)})
	began := time.Now()
	if text, err := os.ReadFile(cached); err != nil || !bytes.Equal(text, old) || time.Since(began) > 5*time.Second { // open does not empty the cache
		t.Fatalf("what is cached: %.20q, %v", text, err)
	}
	done := map[string]chan error{}
	for name, op := range hangs {
		ch := make(chan error, 1)
		done[name] = ch
		go func() { ch <- op(name) }()
	}
	time.Sleep(200 * time.Millisecond)
	for name, ch := range done {
		select {
		case err := <-ch:
			t.Errorf("%s on a hung disk: %v", name, err)
			ch <- nil
		default:
		}
	}
	set(t, address, Behaviour{})
	for name, ch := range done {
		select {
		case err := <-ch:
			if err != nil {
				t.Errorf("%s after the end: %v", name, err)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s hangs on", name)
		}
	}
}

// BenchmarkDisk compares the honest disk with the directory below it.
func BenchmarkDisk(b *testing.B) {
	point, _ := lying(b)
	for name, dir := range map[string]string{"fuse": point, "plain": b.TempDir()} {
		f, err := os.Create(filepath.Join(dir, "f"))
		if err != nil {
			b.Fatal(err)
		}
		block := make([]byte, 4096)
		b.Run(name+"/write", func(b *testing.B) {
			for b.Loop() {
				if _, err := f.WriteAt(block, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/write+fsync", func(b *testing.B) {
			for b.Loop() {
				if _, err := f.WriteAt(block, 0); err != nil {
					b.Fatal(err)
				}
				if err := f.Sync(); err != nil {
					b.Fatal(err)
				}
			}
		})
		f.Close()
	}
}
