package server

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	nfsclient "appliance/nfs/client"
	"appliance/nfs/lockrange"
	"appliance/nfs/proto"
)

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// rig is a server that can be restarted under its clients.
type rig struct {
	t     *testing.T
	dir   string
	clock *clock
	mu    sync.Mutex
	s     *Server
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, dir: filepath.Join(t.TempDir(), "volumes"), clock: &clock{t: time.Unix(1e9, 0)}}
	r.open()
	if err := r.s.CreateVolume("v", VolumeOptions{Mode: 0o777}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.server().Close() })
	return r
}

func (r *rig) open() {
	s, err := Open(r.dir, Options{Now: r.clock.now, Lease: 10 * time.Second, Grace: 30 * time.Second, Reserve: 1 << 20})
	if err != nil {
		r.t.Fatal(err)
	}
	r.mu.Lock()
	r.s = s
	r.mu.Unlock()
}

func (r *rig) restart() {
	if err := r.server().Close(); err != nil {
		r.t.Fatal(err)
	}
	r.open()
}

func (r *rig) server() *Server {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.s
}

func (r *rig) dial(context.Context) (net.Conn, error) {
	a, b := net.Pipe()
	go r.server().ServeVolume(context.Background(), b, "peer", "v")
	return a, nil
}

func (r *rig) client(owner string) *nfsclient.Client {
	c := nfsclient.New(nfsclient.Config{Dial: r.dial, Owner: owner, Verifier: [8]byte{1}})
	r.t.Cleanup(c.Close)
	return c
}

var never nfsclient.Interrupt

func (r *rig) file(c *nfsclient.Client, name string) *nfsclient.File {
	r.t.Helper()
	f, _, err := c.Create(never, nil, name, proto.SetAttr{Mask: proto.Bits(proto.AttrMode), Mode: 0o644}, false, [8]byte{})
	if err != nil {
		r.t.Fatal(err)
	}
	return f
}

var whole = lockrange.Range{End: ^uint64(0), Write: true}

func (r *rig) lock(f *nfsclient.File, want error) {
	r.t.Helper()
	if err := f.Lock(never, "o", whole); !errors.Is(err, want) {
		r.t.Fatalf("got %v, want %v", err, want)
	}
}

func TestLocksSurviveRestart(t *testing.T) {
	r := newRig(t)
	a, b := r.client("a"), r.client("b")
	fa, fb := r.file(a, "f"), r.file(b, "f")
	r.lock(fa, nil)
	r.lock(fb, syscall.EAGAIN)
	if err := fa.Write(never, 0, []byte("data")); err != nil { // not committed
		t.Fatal(err)
	}
	r.restart()
	if st, err := r.server().Stats("v"); err != nil || !st.Grace {
		t.Fatalf("%+v, %v", st, err)
	}
	done := make(chan error, 1)
	go func() { done <- fb.Lock(never, "o", whole) }() // waits for the end of grace, then is refused
	r.lock(fa, nil)
	if err := <-done; err != syscall.EAGAIN {
		t.Fatalf("got %v", err)
	}
	if st, _ := r.server().Stats("v"); st.Grace || st.Opens != 2 || st.Locks != 1 {
		t.Fatalf("%+v", st)
	}
	if err := fa.Unlock(never, "o", whole); err != nil {
		t.Fatal(err)
	}
	r.lock(fb, nil)
	buf := make([]byte, 10)
	if n, err := fb.Read(never, 0, buf); string(buf[:n]) != "data" || err != nil {
		t.Fatalf("%q, %v", buf[:n], err)
	}
}

func TestDeadClientsLocksYieldAfterLease(t *testing.T) {
	r := newRig(t)
	fa, fb := r.file(r.client("a"), "f"), r.file(r.client("b"), "f")
	r.lock(fa, nil)
	r.clock.add(9 * time.Second)
	r.lock(fb, syscall.EAGAIN)
	r.clock.add(2 * time.Second) // b renewed when it asked
	r.lock(fb, nil)
	if err := fa.Write(never, 0, []byte("x")); err != syscall.EIO {
		t.Fatalf("a client that lost its lock writes on: %v", err)
	}
}

func TestFence(t *testing.T) {
	r := newRig(t)
	fa, fb := r.file(r.client("node-a/v"), "f"), r.file(r.client("node-b/v"), "f")
	r.lock(fa, nil)
	if err := r.server().Fence("v", "node-a"); err != nil {
		t.Fatal(err)
	}
	r.lock(fb, nil)
	if err := fa.Write(never, 0, []byte("x")); err != syscall.EIO {
		t.Fatalf("a fenced client writes on: %v", err)
	}
}

func TestFenceEndsGrace(t *testing.T) {
	r := newRig(t)
	dead := nfsclient.New(nfsclient.Config{Dial: func(ctx context.Context) (net.Conn, error) {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return r.dial(ctx)
	}, Owner: "node-a/v", Verifier: [8]byte{1}})
	fb := r.file(r.client("node-b/v"), "f")
	r.lock(r.file(dead, "f"), nil)
	x, _ := r.server().export("v")
	lsn, err := x.vol.AddClient("node-c/v") // a client that will not come back
	if err != nil || x.vol.Wait(lsn) != nil {
		t.Fatal(err)
	}
	r.restart()
	dead.Getattr(never, nil)
	fb.Write(never, 0, []byte("x"))
	if st, _ := r.server().Stats("v"); !st.Grace {
		t.Fatal("grace ended without node-c")
	}
	if err := r.server().Fence("v", "node-c"); err != nil {
		t.Fatal(err)
	}
	if st, _ := r.server().Stats("v"); st.Grace {
		t.Fatal("grace goes on")
	}
	dead.Close()
}

func TestGraceEndsInTime(t *testing.T) {
	r := newRig(t)
	a := r.client("a")
	r.lock(r.file(a, "f"), nil)
	x, _ := r.server().export("v")
	x.vol.AddClient("gone")
	r.restart()
	r.clock.add(31 * time.Second)
	b := r.client("b")
	fb := r.file(b, "g") // blocks until grace is over
	r.lock(fb, nil)
	for _, c := range mustExport(r).vol.Clients() {
		if c == "gone" {
			t.Fatal("a client that missed grace may still reclaim")
		}
	}
}

func mustExport(r *rig) *export {
	x, err := r.server().export("v")
	if err != nil {
		r.t.Fatal(err)
	}
	return x
}

func TestSameOwnerReplacesState(t *testing.T) {
	r := newRig(t)
	r.lock(r.file(r.client("a"), "f"), nil)
	again := nfsclient.New(nfsclient.Config{Dial: r.dial, Owner: "a", Verifier: [8]byte{2}}) // restarted
	defer again.Close()
	r.lock(r.file(again, "f"), nil)
}

func TestVolumes(t *testing.T) {
	r := newRig(t)
	s := r.server()
	if err := s.CreateVolume("v", VolumeOptions{}); !errors.Is(err, ErrExists) {
		t.Fatal(err)
	}
	for _, n := range []string{"", "..", ".x", "a/b", strings.Repeat("n", 129)} {
		if err := s.CreateVolume(n, VolumeOptions{}); !errors.Is(err, ErrName) {
			t.Errorf("%q: %v", n, err)
		}
	}
	c := r.client("a")
	f := r.file(c, "f")
	if err := s.RemoveVolume("v"); !errors.Is(err, ErrBusy) {
		t.Fatal(err)
	}
	f.Close(never)
	if err := s.RemoveVolume("v"); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveVolume("v"); !errors.Is(err, ErrNoVolume) {
		t.Fatal(err)
	}
	if v := s.Volumes(); len(v) != 0 {
		t.Fatal(v)
	}
	if err := s.CreateVolume("v", VolumeOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Getattr(never, nil); err != nil { // the client's volume is another one now, and empty
		t.Fatal(err)
	}
}

func TestAuthorize(t *testing.T) {
	s, err := Open(t.TempDir(), Options{Reserve: 1 << 20, Authorize: func(peer, volume string) error {
		if peer != "friend" {
			return errors.New("not on the list")
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.CreateVolume("v", VolumeOptions{}); err != nil {
		t.Fatal(err)
	}
	a, b := net.Pipe()
	defer a.Close()
	if err := s.ServeVolume(context.Background(), b, "stranger", "v"); !errors.Is(err, ErrDenied) {
		t.Fatal(err)
	}
}

func TestDamagedVolumeDoesNotHinderOthers(t *testing.T) {
	flip := func(b []byte) []byte { b[bytes.Index(b, []byte(`"mode":`))+8] ^= 1; return b }
	for _, c := range []struct {
		name, file, why string
		damage          func([]byte) []byte // nil: removed
	}{
		{"table", "store/snapshot", "restore the volume", func([]byte) []byte { return []byte("damaged") }},
		{"a bit of volume.json", "volume.json", "volume.json is damaged", flip},
		{"no volume.json", "volume.json", "volume.json is missing", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			if err := r.server().CreateVolume("w", VolumeOptions{Mode: 0o777}); err != nil {
				t.Fatal(err)
			}
			if err := r.server().Close(); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(r.dir, "w", c.file)
			b, err := os.ReadFile(file)
			if err == nil && c.damage != nil {
				err = os.WriteFile(file, c.damage(b), 0o600)
			} else if err == nil {
				err = os.Remove(file)
			}
			if err != nil {
				t.Fatal(err)
			}
			r.open()
			s := r.server()
			st, err := s.Stats("w")
			if err != nil || !strings.Contains(st.Failed, c.why) {
				t.Fatalf("%+v, %v", st, err)
			}
			if d := s.Damaged(); len(d) != 1 || d[0].File != filepath.Join(r.dir, "w") || !strings.Contains(d[0].Why, c.why) {
				t.Fatalf("%+v", d)
			}
			if v := s.Volumes(); len(v) != 2 {
				t.Fatal(v)
			}
			if err := s.CreateVolume("w", VolumeOptions{}); !errors.Is(err, ErrExists) {
				t.Fatal(err)
			}
			if _, err := r.client("a").Getattr(never, nil); err != nil {
				t.Fatal(err)
			}
		})
	}
}
