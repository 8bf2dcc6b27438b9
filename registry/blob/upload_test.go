package blob

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"appliance/registry/ref"
)

func TestUploadKeepsWhatArrivedBeforeACut(t *testing.T) {
	s := newStore(t, Options{})
	body := random(5<<20 + 3)
	u, err := s.Start()
	if err != nil {
		t.Fatal(err)
	}
	n, err := u.Append(io.MultiReader(bytes.NewReader(body[:1<<20+7]), iotest.ErrReader(io.ErrUnexpectedEOF)))
	if !errors.Is(err, io.ErrUnexpectedEOF) || n != 1<<20+7 || u.Size() != n {
		t.Fatal(n, err)
	}
	if _, err := u.Append(bytes.NewReader(body[n:])); err != nil {
		t.Fatal(err)
	}
	if _, err := u.Commit(ref.FromBytes(body)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(read(t, s, ref.FromBytes(body)), body) {
		t.Fatal("wrong bytes")
	}
	if _, err := s.Resume(u.ID); !errors.Is(err, ErrUploadUnknown) {
		t.Fatal(err)
	}
}

func TestUploadIsExclusive(t *testing.T) {
	s := newStore(t, Options{})
	u, _ := s.Start()
	r, w := io.Pipe()
	done := make(chan error)
	go func() { _, err := u.Append(r); done <- err }()
	w.Write([]byte("a"))
	if _, err := u.Append(strings.NewReader("b")); !errors.Is(err, ErrUploadBusy) {
		t.Fatal(err)
	}
	if _, err := u.Commit(ref.FromBytes([]byte("a"))); !errors.Is(err, ErrUploadBusy) {
		t.Fatal(err)
	}
	w.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := u.Commit(ref.FromBytes([]byte("a"))); err != nil {
		t.Fatal(err)
	}
}

func TestResumeAfterRestart(t *testing.T) {
	body := random(1000)
	for name, damage := range map[string]func(u *Upload){
		"as it was":      func(*Upload) {},
		"state lost":     func(u *Upload) { os.Remove(u.statePath()) },
		"state garbage":  func(u *Upload) { os.WriteFile(u.statePath(), []byte(`{"size":5,"sha256":"AAAA"}`), 0o600) },
		"another boot":   func(u *Upload) { replace(u.statePath(), bootID(), "other") },
		"state is ahead": func(u *Upload) { replace(u.statePath(), `"size":600`, `"size":6000`) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t, Options{})
			u, _ := s.Start()
			if _, err := u.Append(bytes.NewReader(body[:600])); err != nil {
				t.Fatal(err)
			}
			damage(u)
			s, _ = New(s.root, Options{Reserve: s.reserve})
			u, err := s.Resume(u.ID)
			if err != nil || u.Size() != 600 {
				t.Fatal(u, err)
			}
			u.Append(bytes.NewReader(body[600:]))
			if _, err := u.Commit(ref.FromBytes(body)); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func replace(path, old, with string) {
	b, _ := os.ReadFile(path)
	os.WriteFile(path, []byte(strings.Replace(string(b), old, with, 1)), 0o600)
}

func TestResumeRefusesForgedIDs(t *testing.T) {
	s := newStore(t, Options{})
	for _, id := range []string{"", "x", "../../etc/passwd", strings.Repeat("a", 31), strings.Repeat("../", 10) + "ab", strings.Repeat("f", 32)} {
		if _, err := s.Resume(id); !errors.Is(err, ErrUploadUnknown) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestExpire(t *testing.T) {
	now := time.Now()
	s := newStore(t, Options{Now: func() time.Time { return now }})
	old, _ := s.Start()
	now = now.Add(time.Hour)
	young, _ := s.Start()
	if n, err := s.Expire(time.Hour / 2); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if _, err := old.Append(strings.NewReader("x")); !errors.Is(err, ErrUploadUnknown) {
		t.Fatal(err)
	}
	if _, err := young.Append(strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	s, _ = New(s.root, Options{Now: func() time.Time { return now.Add(time.Hour * 2) }, Reserve: s.reserve})
	if n, err := s.Expire(time.Hour); n != 1 || err != nil || uploadsLeft(t, s) != 0 {
		t.Fatal(n, err)
	}
}

// TestKillNine kills a process in the middle of an upload and finishes the
// upload in this one.
func TestKillNine(t *testing.T) {
	const total = 40 << 20
	if dir := os.Getenv("BLOB_TEST_UPLOAD_DIR"); dir != "" {
		s, err := New(dir, Options{Reserve: func(Space) int64 { return 0 }})
		if err != nil {
			t.Fatal(err)
		}
		u, _ := s.Start()
		// Past two checkpoints and some way into the third, then hang.
		r := io.MultiReader(io.LimitReader(pattern{}, 37<<20), hang{})
		u.AppendFunc(r, func(size int64) { os.WriteFile(dir+"/progress", []byte(u.ID+" "+strconv.FormatInt(size, 10)), 0o600) })
		return
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKillNine$")
	cmd.Env = append(os.Environ(), "BLOB_TEST_UPLOAD_DIR="+dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var id, at string
	for deadline := time.Now().Add(20 * time.Second); at != strconv.Itoa(37<<20); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			cmd.Process.Kill()
			t.Fatal("the child makes no progress:", at)
		}
		b, _ := os.ReadFile(dir + "/progress")
		id, at, _ = strings.Cut(string(b), " ")
	}
	cmd.Process.Kill()
	cmd.Wait()

	s, err := New(dir, Options{Reserve: func(Space) int64 { return 0 }})
	if err != nil {
		t.Fatal(err)
	}
	u, err := s.Resume(id)
	if err != nil || u.Size() != 37<<20 {
		t.Fatal(u, err)
	}
	h := ref.Digest("").Hash()
	io.Copy(h, io.LimitReader(pattern{}, total))
	if _, err := u.Append(io.LimitReader(pattern{}, total-u.Size())); err != nil {
		t.Fatal(err)
	}
	info, err := u.Commit(ref.FromHash(h))
	if err != nil || info.Size != total {
		t.Fatal(info, err)
	}
	s, _ = New(dir, Options{})
	if err := s.Verify(info.Digest); err != nil {
		t.Fatal(err)
	}
}

// pattern repeats every MiB, so that a tail can be produced by itself.
type pattern struct{}

func (pattern) Read(p []byte) (int, error) {
	n := min(len(p), 1<<20)
	for i := range n {
		p[i] = byte(i)
	}
	return n, nil
}

type hang struct{}

func (hang) Read([]byte) (int, error) { select {} }
