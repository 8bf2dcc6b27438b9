package blob

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha512"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"appliance/node/needs"

	"appliance/registry/ref"
)

func newStore(t testing.TB, o Options) *Store {
	t.Helper()
	if o.Reserve == nil {
		o.Reserve = func(Space) int64 { return 0 }
	}
	s, err := New(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func read(t *testing.T, s *Store, d ref.Digest) []byte {
	t.Helper()
	c, err := s.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	if err != nil || int64(len(b)) != c.Size {
		t.Fatal(len(b), c.Size, err)
	}
	return b
}

func uploadsLeft(t *testing.T, s *Store) int {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.root, "uploads"))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestPut(t *testing.T) {
	body := random(3<<20 + 17)
	sum := sha512.New()
	sum.Write(body)
	for name, tc := range map[string]struct {
		digest ref.Digest
		body   io.Reader
		err    error
	}{
		"sha256":         {ref.FromBytes(body), bytes.NewReader(body), nil},
		"sha512":         {ref.FromHash(sum), bytes.NewReader(body), nil},
		"byte by byte":   {ref.FromBytes(body[:999]), iotest.OneByteReader(bytes.NewReader(body[:999])), nil},
		"empty":          {ref.FromBytes(nil), strings.NewReader(""), nil},
		"wrong digest":   {ref.FromBytes([]byte("x")), bytes.NewReader(body), ErrDigest},
		"too large":      {ref.FromBytes(nil), bytes.NewReader(random(5 << 20)), ErrTooLarge},
		"cut short":      {ref.FromBytes(body), io.MultiReader(bytes.NewReader(body[:9]), iotest.ErrReader(io.ErrUnexpectedEOF)), io.ErrUnexpectedEOF},
		"forged digest":  {"sha256:../../../../../../tmp/x", strings.NewReader(""), ref.ErrDigest},
		"foreign digest": {"md5:00", strings.NewReader(""), ref.ErrDigest},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t, Options{MaxBlob: 4 << 20})
			info, err := s.Put(tc.digest, tc.body)
			if !errors.Is(err, tc.err) || (tc.err == nil) != (err == nil) {
				t.Fatalf("got %v, want %v", err, tc.err)
			}
			if n := uploadsLeft(t, s); n != 0 {
				t.Fatalf("%d files left in uploads", n)
			}
			_, err = s.Stat(tc.digest)
			if tc.err != nil {
				if err == nil {
					t.Fatal("a refused blob is visible")
				}
				return
			}
			if got := read(t, s, tc.digest); int64(len(got)) != info.Size {
				t.Fatal(len(got), info.Size)
			}
		})
	}
}

func TestListDelete(t *testing.T) {
	s := newStore(t, Options{})
	want := map[ref.Digest]bool{}
	for range 20 {
		b := random(10)
		want[ref.FromBytes(b)] = true
		if _, err := s.Put(ref.FromBytes(b), bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
	}
	os.WriteFile(filepath.Join(s.root, "blobs", "sha256", "litter"), nil, 0o600)
	for info, err := range s.List(context.Background()) {
		if err != nil || !want[info.Digest] {
			t.Fatal(info, err)
		}
		delete(want, info.Digest)
		c, err := s.Open(info.Digest)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Delete(info.Digest); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(c); err != nil || len(b) != 10 {
			t.Fatal("an open blob must stay readable", err)
		}
		c.Close()
		if err := s.Delete(info.Digest); !errors.Is(err, ErrUnknown) {
			t.Fatal(err)
		}
	}
	if len(want) != 0 {
		t.Fatal("not listed:", want)
	}
}

func TestCorruptCopyIsDroppedAndReplaced(t *testing.T) {
	dir := t.TempDir()
	body := random(2 << 20)
	d := ref.FromBytes(body)
	s, _ := New(dir, Options{Reserve: func(Space) int64 { return 0 }})
	if _, err := s.Put(d, bytes.NewReader(body)); err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func(path string) error{
		"bit flipped": func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteAt([]byte{body[1<<20] ^ 1}, 1<<20)
			return err
		},
		"truncated": func(path string) error { return os.Truncate(path, 100) },
		"emptied":   func(path string) error { return os.Truncate(path, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			path, _ := s.path(d)
			if err := damage(path); err != nil {
				t.Fatal(err)
			}
			s, _ = New(dir, Options{Reserve: func(Space) int64 { return 0 }}) // restart
			if _, err := s.Open(d); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("got %v", err)
			}
			if _, err := s.Stat(d); !errors.Is(err, ErrUnknown) {
				t.Fatalf("the corrupt copy is still there: %v", err)
			}
			if _, err := s.Put(d, bytes.NewReader(body)); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(read(t, s, d), body) {
				t.Fatal("wrong bytes")
			}
		})
	}
}

func TestDeleteOlder(t *testing.T) {
	now := time.Now()
	s := newStore(t, Options{Now: func() time.Time { return now }})
	d := ref.FromBytes([]byte("x"))
	u, _ := s.Start()
	u.Append(strings.NewReader("x"))
	now = now.Add(3 * time.Hour) // a slow push: the bytes are old, the blob is new
	if _, err := u.Commit(d); err != nil {
		t.Fatal(err)
	}
	if gone, err := s.DeleteOlder(d, now.Add(-time.Hour)); gone || err != nil {
		t.Fatal("a new blob was deleted:", err)
	}
	now = now.Add(2 * time.Hour)
	if err := s.Touch(d); err != nil {
		t.Fatal(err)
	}
	if gone, err := s.DeleteOlder(d, now.Add(-time.Hour)); gone || err != nil {
		t.Fatal("a touched blob was deleted:", err)
	}
	now = now.Add(2 * time.Hour)
	if gone, err := s.DeleteOlder(d, now.Add(-time.Hour)); !gone || err != nil {
		t.Fatal("an old blob stays:", err)
	}
	if gone, err := s.DeleteOlder(d, now); gone || err != nil {
		t.Fatal(gone, err)
	}
}

func TestTouchRestartsGraceAndKeepsTrust(t *testing.T) {
	now := time.Now().Add(time.Hour).Truncate(time.Millisecond)
	s := newStore(t, Options{Now: func() time.Time { return now }})
	d := ref.FromBytes([]byte("x"))
	if _, err := s.Put(d, strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	if err := s.Touch(d); err != nil {
		t.Fatal(err)
	}
	info, err := s.Stat(d)
	if err != nil || !info.Modified.Equal(now) {
		t.Fatal(info, err)
	}
	path, _ := s.path(d)
	st, _ := os.Stat(path)
	if !s.isTrusted(d, st) {
		t.Fatal("touch must not cost a new verification")
	}
	if err := s.Touch(ref.FromBytes([]byte("y"))); !errors.Is(err, ErrUnknown) {
		t.Fatal(err)
	}
}

func TestFullDisk(t *testing.T) {
	dir := needs.Disk(t, "8m")
	for name, reserve := range map[string]int64{"watermark": 2 << 20, "kernel's own ENOSPC": -1 << 40} {
		t.Run(name, func(t *testing.T) {
			s, err := New(dir, Options{Reserve: func(Space) int64 { return reserve }})
			if err != nil {
				t.Fatal(err)
			}
			small := random(1 << 20)
			if _, err := s.Put(ref.FromBytes(small), bytes.NewReader(small)); err != nil {
				t.Fatal(err)
			}
			big := random(12 << 20)
			if _, err := s.Put(ref.FromBytes(big), bytes.NewReader(big)); !errors.Is(err, ErrNoSpace) {
				t.Fatalf("got %v", err)
			}
			if n := uploadsLeft(t, s); n != 0 {
				t.Fatal("the refused upload still takes space:", n)
			}
			if !bytes.Equal(read(t, s, ref.FromBytes(small)), small) {
				t.Fatal("reads must go on")
			}
			if err := s.Delete(ref.FromBytes(small)); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestConcurrentPutsOfOneBlob(t *testing.T) {
	s := newStore(t, Options{})
	body := random(1 << 20)
	d := ref.FromBytes(body)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := s.Put(d, bytes.NewReader(body)); err != nil {
				t.Error(err)
			}
			if c, err := s.Open(d); err != nil {
				t.Error(err)
			} else {
				c.Close()
			}
		})
	}
	wg.Wait()
	if n := uploadsLeft(t, s); n != 0 {
		t.Fatal(n)
	}
}

func BenchmarkPut(b *testing.B) {
	for name, size := range map[string]int{"16KiB": 16 << 10, "64MiB": 64 << 20} {
		b.Run(name, func(b *testing.B) {
			s := newStore(b, Options{})
			body := random(size)
			b.SetBytes(int64(size))
			b.SetParallelism(4)
			var n, mu = uint64(0), sync.Mutex{}
			b.RunParallel(func(pb *testing.PB) {
				own := bytes.Clone(body)
				for pb.Next() {
					mu.Lock()
					n++
					copy(own, []byte{byte(n), byte(n >> 8), byte(n >> 16)})
					mu.Unlock()
					d := ref.FromBytes(own)
					if _, err := s.Put(d, bytes.NewReader(own)); err != nil {
						b.Fatal(err)
					}
					if size > 1<<20 {
						s.Delete(d)
					}
				}
			})
		})
	}
}
