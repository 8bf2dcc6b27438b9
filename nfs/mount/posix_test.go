package mount

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, err error, want syscall.Errno) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got %v, want %v", err, want)
	}
}

func wantContent(t *testing.T, path, want string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil || string(b) != want {
		t.Fatalf("%s: got %q, %v, want %q", path, b, err, want)
	}
}

// TestPOSIX checks file system semantics; a changes things, b is another host that looks.
func TestPOSIX(t *testing.T) {
	t.Parallel()
	v := newVolume(t)
	a, b := v.mount(1), v.mount(2)
	tests := []struct {
		name string
		run  func(t *testing.T, a, b string)
	}{
		{"rename replaces", renameReplaces}, {"rename directories", renameDirs}, {"unlinked file stays open", unlinkOpen},
		{"truncate", truncates}, {"append from two hosts", appends}, {"exclusive create race", exclusive},
		{"directories", directories}, {"links", links}, {"attributes", attributes}, {"large directory", largeDir},
		{"listing while removing", removeAll}, {"random access", randomAccess}, {"special files", specials},
		{"record locks", recordLocks}, {"flock", flocks}, {"lock wait is interruptible", lockWait}, {"names", names}, {"statfs", statfs},
		{"ordinary user", ordinaryUser}, {"executable", executable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := fmt.Sprintf("dir%d", rand.Int63())
			must(t, os.Mkdir(filepath.Join(a, d), 0o777))
			must(t, os.Chmod(filepath.Join(a, d), 0o777))
			tt.run(t, filepath.Join(a, d), filepath.Join(b, d))
		})
	}
}

func renameReplaces(t *testing.T, a, b string) {
	must(t, os.WriteFile(a+"/new", []byte("new"), 0o644))
	must(t, os.WriteFile(a+"/old", []byte("old"), 0o644))
	f, err := os.Open(b + "/old")
	must(t, err)
	defer f.Close()
	must(t, os.Rename(a+"/new", a+"/old"))
	wantContent(t, b+"/old", "new")
	got, err := io.ReadAll(f)
	if string(got) != "old" || err != nil {
		t.Fatalf("the open file reads %q, %v", got, err)
	}
	_, err = os.Stat(b + "/new")
	wantErr(t, err, syscall.ENOENT)
}

func renameDirs(t *testing.T, a, b string) {
	must(t, os.MkdirAll(a+"/x/y", 0o755))
	must(t, os.MkdirAll(a+"/full/z", 0o755))
	must(t, os.Mkdir(a+"/empty", 0o755))
	wantErr(t, unix.Rename(a+"/x", a+"/x/y/x"), syscall.EINVAL)
	wantErr(t, unix.Rename(a+"/x", a+"/full"), syscall.ENOTEMPTY)
	must(t, unix.Rename(a+"/x", a+"/empty"))
	if fi, err := os.Stat(b + "/empty/y"); err != nil || !fi.IsDir() {
		t.Fatal(err)
	}
	must(t, unix.Rename(a+"/empty/y", a+"/full/y"))
	var st unix.Stat_t
	must(t, unix.Stat(b+"/full", &st))
	if st.Nlink != 4 {
		t.Fatalf("%d links, want 4", st.Nlink)
	}
}

func unlinkOpen(t *testing.T, a, b string) {
	f, err := os.Create(a + "/f")
	must(t, err)
	f.WriteString("one")
	must(t, os.Remove(b+"/f"))
	_, err = f.WriteString("two")
	must(t, err)
	got := make([]byte, 6)
	_, err = f.ReadAt(got, 0)
	if string(got) != "onetwo" || err != nil {
		t.Fatalf("got %q, %v", got, err)
	}
	fi, err := f.Stat()
	if err != nil || fi.Sys().(*syscall.Stat_t).Nlink != 0 {
		t.Fatalf("%v, %v", fi, err)
	}
	must(t, f.Close())
}

func truncates(t *testing.T, a, b string) {
	must(t, os.WriteFile(a+"/f", []byte("0123456789"), 0o644))
	must(t, os.Truncate(b+"/f", 4))
	wantContent(t, a+"/f", "0123")
	must(t, os.Truncate(a+"/f", 6))
	wantContent(t, b+"/f", "0123\x00\x00")
	f, err := os.OpenFile(b+"/f", os.O_WRONLY|os.O_TRUNC, 0)
	must(t, err)
	f.WriteAt([]byte("x"), 3)
	must(t, f.Close())
	wantContent(t, a+"/f", "\x00\x00\x00x")
}

func appends(t *testing.T, a, b string) {
	var wg sync.WaitGroup
	const each = 50
	for _, d := range []string{a, b} {
		wg.Add(1)
		go func() {
			defer wg.Done()
			f, err := os.OpenFile(d+"/log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			for range each {
				if _, err := f.WriteString("0123456789\n"); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	got, err := os.ReadFile(a + "/log")
	must(t, err)
	if want := bytes.Repeat([]byte("0123456789\n"), 2*each); !bytes.Equal(got, want) {
		t.Fatalf("%d bytes, want %d, whole lines", len(got), len(want))
	}
}

func exclusive(t *testing.T, a, b string) {
	for i := range 20 {
		var won atomic.Int32
		var wg sync.WaitGroup
		for _, d := range []string{a, b, a, b} {
			wg.Add(1)
			go func() {
				defer wg.Done()
				f, err := os.OpenFile(fmt.Sprintf("%s/lock%d", d, i), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
				switch {
				case err == nil:
					won.Add(1)
					f.Close()
				case !errors.Is(err, fs.ErrExist):
					t.Error(err)
				}
			}()
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("%d winners", won.Load())
		}
	}
}

func directories(t *testing.T, a, b string) {
	must(t, os.Mkdir(a+"/d", 0o750))
	wantErr(t, unix.Mkdir(b+"/d", 0o750), syscall.EEXIST)
	must(t, os.WriteFile(b+"/d/f", nil, 0o644))
	wantErr(t, unix.Rmdir(a+"/d"), syscall.ENOTEMPTY)
	wantErr(t, unix.Unlink(a+"/d"), syscall.EISDIR)
	wantErr(t, unix.Rmdir(a+"/d/f"), syscall.ENOTDIR)
	must(t, os.Remove(a+"/d/f"))
	must(t, os.Remove(b+"/d"))
	_, err := os.Stat(a + "/d")
	wantErr(t, err, syscall.ENOENT)
}

func links(t *testing.T, a, b string) {
	must(t, os.WriteFile(a+"/f", []byte("x"), 0o644))
	must(t, os.Link(a+"/f", a+"/g"))
	wantErr(t, unix.Link(b+"/f", b+"/g"), syscall.EEXIST)
	f1, err := os.Stat(b + "/f")
	must(t, err)
	f2, err := os.Stat(b + "/g")
	must(t, err)
	if !os.SameFile(f1, f2) || f1.Sys().(*syscall.Stat_t).Nlink != 2 {
		t.Fatalf("%v %v", f1, f2)
	}
	must(t, os.Rename(a+"/f", a+"/g")) // two names of one file: both stay
	must(t, os.Remove(a+"/f"))
	wantContent(t, b+"/g", "x")
	must(t, os.Symlink("g", a+"/s"))
	if s, err := os.Readlink(b + "/s"); s != "g" || err != nil {
		t.Fatal(s, err)
	}
	wantContent(t, b+"/s", "x")
	must(t, os.Symlink("loop", a+"/loop"))
	_, err = os.Open(b + "/loop")
	wantErr(t, err, syscall.ELOOP)
}

func attributes(t *testing.T, a, b string) {
	must(t, os.WriteFile(a+"/f", []byte("x"), 0o600))
	must(t, os.Chmod(a+"/f", 0o4751&0o7777))
	must(t, os.Chown(a+"/f", 1234, 5678))
	at, mt := time.Unix(1_000_000_000, 123456789), time.Unix(2_000_000_000, 987654321)
	must(t, os.Chtimes(a+"/f", at, mt))
	var st unix.Stat_t
	must(t, unix.Stat(b+"/f", &st))
	if st.Uid != 1234 || st.Gid != 5678 || st.Atim.Nano() != at.UnixNano() || st.Mtim.Nano() != mt.UnixNano() {
		t.Fatalf("%+v", st)
	}
	must(t, unix.Chmod(b+"/f", 0o6755))
	must(t, unix.Stat(a+"/f", &st))
	if st.Mode != unix.S_IFREG|0o6755 {
		t.Fatalf("mode %o", st.Mode)
	}
	must(t, os.Chtimes(b+"/f", time.Now(), time.Now()))
	before := time.Now()
	must(t, os.WriteFile(a+"/f", []byte("y"), 0))
	fi, err := os.Stat(b + "/f")
	must(t, err)
	if fi.ModTime().Before(before.Add(-time.Second)) {
		t.Fatalf("a write left the time at %v", fi.ModTime())
	}
	must(t, os.Chown(a, 0, 4321))
	must(t, unix.Chmod(a, 0o2777))
	must(t, os.Mkdir(b+"/sub", 0o755))
	must(t, unix.Stat(a+"/sub", &st))
	if st.Gid != 4321 || st.Mode&unix.S_ISGID == 0 {
		t.Fatalf("set-group-id directory is not inherited: %+v", st)
	}
}

func largeDir(t *testing.T, a, b string) {
	const n = 2000
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := w; i < n; i += 16 {
				if err := unix.Mknod(fmt.Sprintf("%s/file-%04d", a, i), unix.S_IFIFO|0o644, 0); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	es, err := os.ReadDir(b)
	must(t, err)
	if len(es) != n {
		t.Fatalf("%d entries", len(es))
	}
	for i, e := range es {
		if e.Name() != fmt.Sprintf("file-%04d", i) || e.Type() != fs.ModeNamedPipe {
			t.Fatalf("entry %d is %s %v", i, e.Name(), e.Type())
		}
	}
}

func removeAll(t *testing.T, a, b string) {
	const n = 120
	for i := range n {
		must(t, os.WriteFile(fmt.Sprintf("%s/%d", a, i), nil, 0o644))
	}
	d, err := os.Open(b)
	must(t, err)
	defer d.Close()
	seen := 0
	for {
		batch, err := d.Readdirnames(7)
		if err == io.EOF {
			break
		}
		must(t, err)
		for _, name := range batch {
			must(t, os.Remove(filepath.Join(a, name)))
			seen++
		}
	}
	if seen != n {
		t.Fatalf("saw %d", seen)
	}
}

func randomAccess(t *testing.T, a, b string) {
	const size = 6 << 20
	want := make([]byte, size)
	fa, err := os.Create(a + "/big")
	must(t, err)
	defer fa.Close()
	fb, err := os.OpenFile(b+"/big", os.O_RDWR, 0)
	must(t, err)
	defer fb.Close()
	must(t, fa.Truncate(size))
	r := rand.New(rand.NewSource(1))
	for i := range 150 {
		w, rd := fa, fb
		if i%2 == 1 {
			w, rd = fb, fa
		}
		off := r.Intn(size)
		buf := make([]byte, min(size-off, 1+r.Intn(1<<(1+r.Intn(20)))))
		r.Read(buf)
		copy(want[off:], buf)
		_, err := w.WriteAt(buf, int64(off))
		must(t, err)
		off = r.Intn(size)
		got := make([]byte, min(size-off, 1+r.Intn(1<<18)))
		_, err = rd.ReadAt(got, int64(off))
		must(t, err)
		if !bytes.Equal(got, want[off:off+len(got)]) {
			t.Fatalf("round %d: bytes from %d differ", i, off)
		}
	}
	must(t, fa.Sync())
	got, err := os.ReadFile(b + "/big")
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Fatal("files differ")
	}
}

func specials(t *testing.T, a, b string) {
	must(t, unix.Mknod(a+"/fifo", unix.S_IFIFO|0o600, 0))
	must(t, unix.Mknod(a+"/dev", unix.S_IFCHR|0o600, int(unix.Mkdev(259, 70000))))
	must(t, unix.Mknod(a+"/plain", unix.S_IFREG|0o600, 0))
	var st unix.Stat_t
	must(t, unix.Stat(b+"/dev", &st))
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || unix.Major(st.Rdev) != 259 || unix.Minor(st.Rdev) != 70000 {
		t.Fatalf("%+v: %d,%d", st, unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	wantErr(t, unix.Mknod(b+"/plain", unix.S_IFREG|0o600, 0), syscall.EEXIST)
}

func setLk(f *os.File, typ int16, start, length int64) error {
	return unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: typ, Start: start, Len: length})
}

func openBoth(t *testing.T, a, b string) (fa, fb *os.File) {
	fa, err := os.OpenFile(a+"/f", os.O_CREATE|os.O_RDWR, 0o644)
	must(t, err)
	fb, err = os.OpenFile(b+"/f", os.O_RDWR, 0)
	must(t, err)
	t.Cleanup(func() { fa.Close(); fb.Close() })
	return fa, fb
}

func recordLocks(t *testing.T, a, b string) {
	fa, fb := openBoth(t, a, b)
	must(t, setLk(fa, unix.F_WRLCK, 10, 10))
	wantErr(t, setLk(fb, unix.F_RDLCK, 19, 1), syscall.EAGAIN)
	must(t, setLk(fb, unix.F_WRLCK, 20, 0))
	wantErr(t, setLk(fa, unix.F_WRLCK, 0, 0), syscall.EAGAIN)
	must(t, setLk(fa, unix.F_RDLCK, 12, 2)) // downgrade in the middle
	must(t, setLk(fb, unix.F_RDLCK, 12, 2))
	wantErr(t, setLk(fb, unix.F_RDLCK, 14, 1), syscall.EAGAIN)
	lk := unix.Flock_t{Type: unix.F_WRLCK, Start: 0, Len: 0}
	must(t, unix.FcntlFlock(fb.Fd(), unix.F_GETLK, &lk))
	if lk.Type != unix.F_WRLCK || lk.Start != 10 || lk.Len != 2 {
		t.Fatalf("held lock is %+v", lk)
	}
	other, err := os.Open(a + "/f")
	must(t, err)
	other.Close() // closing any descriptor drops the process's locks
	must(t, setLk(fb, unix.F_WRLCK, 0, 0))
	must(t, setLk(fb, unix.F_UNLCK, 0, 0))
	must(t, setLk(fa, unix.F_WRLCK, 0, 0))
}

func flocks(t *testing.T, a, b string) {
	fa, fb := openBoth(t, a, b)
	must(t, unix.Flock(int(fa.Fd()), unix.LOCK_EX))
	wantErr(t, unix.Flock(int(fb.Fd()), unix.LOCK_SH|unix.LOCK_NB), syscall.EAGAIN)
	must(t, setLk(fb, unix.F_WRLCK, 0, 0)) // the two kinds of locks are independent
	must(t, fa.Close())
	must(t, unix.Flock(int(fb.Fd()), unix.LOCK_EX))
}

func lockWait(t *testing.T, a, b string) {
	fa, fb := openBoth(t, a, b)
	must(t, unix.Flock(int(fa.Fd()), unix.LOCK_EX))
	cmd := exec.Command("flock", b+"/f", "true")
	must(t, cmd.Start())
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	select {
	case err := <-exited:
		t.Fatalf("got a lock that is held: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-exited:
	case <-time.After(5 * time.Second):
		t.Fatal("a lock wait cannot be interrupted")
	}
	granted := make(chan error, 1)
	go func() { granted <- unix.Flock(int(fb.Fd()), unix.LOCK_EX) }()
	must(t, unix.Flock(int(fa.Fd()), unix.LOCK_UN))
	select {
	case err := <-granted:
		must(t, err)
	case <-time.After(5 * time.Second):
		t.Fatal("the lock was not handed over")
	}
}

func names(t *testing.T, a, b string) {
	long := string(bytes.Repeat([]byte("n"), 255))
	must(t, os.WriteFile(a+"/"+long, nil, 0o644))
	_, err := os.Stat(b + "/" + long)
	must(t, err)
	_, err = os.Create(a + "/" + long + "n")
	wantErr(t, err, syscall.ENAMETOOLONG)
	must(t, os.WriteFile(a+"/späße 日本", nil, 0o644))
	_, err = os.Stat(b + "/späße 日本")
	must(t, err)
	_, err = os.Stat(b + "/" + long + "/x")
	wantErr(t, err, syscall.ENOTDIR)
}

func statfs(t *testing.T, a, _ string) {
	var st unix.Statfs_t
	must(t, unix.Statfs(a, &st))
	if st.Blocks == 0 || st.Bavail == 0 || st.Namelen != 255 {
		t.Fatalf("%+v", st)
	}
}

// as runs a shell command as an ordinary user, once through each host.
func as(t *testing.T, uid uint32, dir, script string) error {
	cmd := exec.Command("sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	cmd.Env = []string{"PATH=/usr/bin:/bin", "D=" + dir}
	out, err := cmd.CombinedOutput()
	t.Logf("%s: %v %s", script, err, out)
	return err
}

func ordinaryUser(t *testing.T, a, b string) {
	for d := filepath.Dir(filepath.Dir(a)); d != "/tmp" && d != "/"; d = filepath.Dir(d) {
		must(t, os.Chmod(d, 0o755))
	}
	must(t, os.WriteFile(a+"/secret", []byte("x"), 0o600))
	must(t, as(t, 1000, a, "echo hello > $D/mine && chmod 600 $D/mine"))
	if as(t, 1000, b, "cat $D/secret") == nil || as(t, 1001, b, "cat $D/mine") == nil || as(t, 1001, b, "chmod 777 $D/mine") == nil {
		t.Fatal("permissions are not kept")
	}
	must(t, as(t, 1000, b, "cat $D/mine && rm $D/mine"))
	must(t, unix.Chmod(a, 0o1777))
	must(t, as(t, 1000, a, "touch $D/sticky"))
	if as(t, 1001, b, "rm -f $D/sticky") == nil {
		t.Fatal("the sticky bit is not kept")
	}
}

func executable(t *testing.T, a, b string) {
	bin, err := os.ReadFile("/bin/true")
	must(t, err)
	must(t, os.WriteFile(a+"/true", bin, 0o755))
	must(t, exec.Command(b+"/true").Run())
}

func TestMountIdempotentAndUnmount(t *testing.T) {
	t.Parallel()
	v := newVolume(t)
	d := v.mount(1)
	s := v.spec(1)
	pid := func() int {
		l, err := List(s.StateDir)
		must(t, err)
		if len(l) != 1 || !l[0].Healthy || l[0].Kind != KindFUSE {
			t.Fatalf("%+v", l)
		}
		return l[0].PID
	}
	first := pid()
	must(t, Mount(context.Background(), s))
	if pid() != first {
		t.Fatal("mounted again")
	}
	f, err := os.Create(d + "/f")
	must(t, err)
	if err := Unmount(context.Background(), s.StateDir, s.Target); !errors.Is(err, ErrBusy) {
		t.Fatalf("got %v", err)
	}
	f.Close()
	must(t, unix.Kill(first, unix.SIGKILL)) // the client dies: the mount is dead, and replaced
	for l, _ := List(s.StateDir); l[0].Healthy; l, _ = List(s.StateDir) {
		time.Sleep(5 * time.Millisecond)
	}
	must(t, Mount(context.Background(), s))
	_, err = os.Stat(d + "/f")
	must(t, err)
	must(t, Unmount(context.Background(), s.StateDir, s.Target))
	must(t, Unmount(context.Background(), s.StateDir, s.Target))
	if l, _ := List(s.StateDir); len(l) != 0 {
		t.Fatalf("%+v", l)
	}
}

// A host that has rebooted and does not mount the volume again must not keep
// the others waiting for it after a restart of the server.
func TestReleaseAfterReboot(t *testing.T) {
	t.Parallel()
	v := newVolume(t)
	here, gone := v.mount(1), v.mount(2)
	f, err := os.Create(gone + "/open")
	must(t, err)
	s := v.spec(2)
	must(t, Release(t.Context(), s)) // in use: nothing happens
	_, err = f.WriteString("still here")
	must(t, err)
	v.kill()
	l, err := List(s.StateDir)
	must(t, err)
	for _, st := range l { // what a reboot does
		if st.Target == s.Target {
			must(t, unix.Kill(st.PID, unix.SIGKILL))
			for st.alive() {
				time.Sleep(5 * time.Millisecond)
			}
			must(t, unix.Unmount(gone, unix.MNT_DETACH))
			must(t, os.Remove(s.stateFile()))
		}
	}
	f.Close()
	v.start()
	for { // until the server listens
		if err := Release(t.Context(), s); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if _, err := os.Stat(gone); err == nil {
		t.Error("the target is still there")
	}
	must(t, os.WriteFile(here+"/new", nil, 0o600)) // waits while the server waits
	log, err := os.ReadFile(filepath.Join(v.dir, "server.log"))
	must(t, err)
	if strings.Contains(string(log), "did not come back") {
		t.Errorf("the server waited until the end of grace:\n%s", log)
	}
}

func TestMountRefused(t *testing.T) {
	t.Parallel()
	v := newVolume(t)
	v.mount(1)
	s := v.spec(2)
	s.Volume = "missing"
	start := time.Now()
	err := Mount(context.Background(), s)
	if err == nil || time.Since(start) > 10*time.Second {
		t.Fatalf("got %v after %v", err, time.Since(start))
	}
	t.Log(err)
	if l, _ := List(s.StateDir); len(l) != 1 {
		t.Fatalf("a failed mount left a trace: %+v", l)
	}
}

// TestKillWhileServerAway checks that a hard mount does not keep a process from being killed.
func TestKillWhileServerAway(t *testing.T) {
	t.Parallel()
	v := newVolume(t)
	d := v.mount(1)
	must(t, os.WriteFile(d+"/f", []byte("x"), 0o644))
	v.kill()
	cmd := exec.Command("cat", d+"/f")
	must(t, cmd.Start())
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	select {
	case err := <-exited:
		t.Fatalf("a hard mount answered without its server: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	cmd.Process.Kill()
	select {
	case <-exited:
	case <-time.After(5 * time.Second):
		t.Fatal("SIGKILL does not get through")
	}
	v.start()
	wantContent(t, d+"/f", "x")
}

// A container whose volume is here already must start while the volume's server is away; only what it
// reads and writes waits.
func TestMountIsThereWhileServerAway(t *testing.T) {
	t.Parallel()
	v := newVolume(t)
	d := v.mount(1)
	must(t, os.WriteFile(d+"/f", []byte("x"), 0o644))
	before, err := os.Stat(d)
	must(t, err)
	v.kill()
	within := func(what string, do func() error) {
		t.Helper()
		done := make(chan error, 1)
		go func() { done <- do() }()
		select {
		case err := <-done:
			must(t, err)
		case <-time.After(10 * rootPatience):
			t.Errorf("%s waits for the server", what)
		}
	}
	within("Mount", func() error { return Mount(context.Background(), v.spec(1)) })
	within("a look at the mount point", func() error {
		now, err := os.Stat(d)
		if err == nil && now.Mode() != before.Mode() {
			err = fmt.Errorf("mode %s, before %s", now.Mode(), before.Mode())
		}
		return err
	})
	at := filepath.Join(v.dir, "container")
	must(t, os.Mkdir(at, 0o755))
	within("a bind mount", func() error { return unix.Mount(d, at, "", unix.MS_BIND, "") })
	t.Cleanup(func() { unix.Unmount(at, unix.MNT_DETACH) })
	v.start()
	wantContent(t, at+"/f", "x")
}
