package feed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"appliance/node/pki"
	"appliance/node/wire"
	"appliance/node/wire/wiretest"
	"appliance/raft"
	"appliance/raft/rafttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// masters starts n masters that serve the feed from rings of a given size.
func masters(t *testing.T, n, entries int) *rafttest.Cluster {
	c := rafttest.New(t, n)
	c.OnStart = func(m *rafttest.Member, mux *http.ServeMux) {
		newServer(m.Node, rafttest.Logger(), nil, newRing(entries, ringBytes)).Mount(mux)
	}
	return c.Up()
}

type agent struct {
	*Follower
	sm      *rafttest.Journal
	replica *raft.Replica
	dialer  *wire.Dialer
	stop    func()
}

func follow(t *testing.T, c *rafttest.Cluster, dir string, addrs func() []string) *agent {
	t.Helper()
	a := &agent{sm: &rafttest.Journal{}, dialer: wire.NewDialer(c.CA.Keychain(t, "a1", pki.Agent))}
	a.replica = raft.NewReplica(a.sm)
	var err error
	a.Follower, err = NewFollower(Config{Replica: a.replica, Client: a.dialer.Client(), Masters: addrs, Dir: dir, Log: rafttest.Logger()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	stopped := false
	a.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		a.dialer.Close()
	}
	t.Cleanup(a.stop)
	return a
}

func all(c *rafttest.Cluster) func() []string {
	var addrs []string
	for _, m := range c.Members {
		addrs = append(addrs, m.Addr)
	}
	return func() []string { return addrs }
}

func (a *agent) reach(t *testing.T, index uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := a.replica.WaitApplied(ctx, index); err != nil {
		t.Fatal(err)
	}
}

func TestFollowerSeesEveryEntryAcrossMasterLoss(t *testing.T) {
	c := masters(t, 3, ringEntries)
	a := follow(t, c, t.TempDir(), all(c))
	var last uint64
	for i := range 50 {
		last = rafttest.Put(t, c.Members[i%3].Node, fmt.Sprint(i))
	}
	a.reach(t, last)
	st := a.Status()
	if st.Commit < last || st.Stale(time.Now()) {
		t.Errorf("status %+v", st)
	}
	for _, m := range c.Members { // the one it follows
		if m.Addr == st.Master {
			m.Stop(false)
		}
	}
	for _, m := range c.Members {
		if m.Running() {
			last = rafttest.Put(t, m.Node, "after "+m.ID)
		}
	}
	a.reach(t, last)
	if !slices.Equal(a.sm.Text(), c.Leader().SM.Text()) {
		t.Errorf("the follower has %d lines, the leader %d", len(a.sm.Text()), len(c.Leader().SM.Text()))
	}
	if now := a.Status().Master; now == st.Master || now == "" {
		t.Errorf("still at %q", now)
	}
}

// A follower proposes through Remote and reads its own write from its own replica.
func TestFollowerReadsItsOwnWrite(t *testing.T) {
	c := masters(t, 3, ringEntries)
	a := follow(t, c, t.TempDir(), all(c))
	r := raft.NewRemote(a.replica, a.dialer.Client(), all(c))
	t.Cleanup(r.Close)
	for i := range 10 {
		rafttest.Put(t, r, fmt.Sprint(i))
		if got := a.sm.Text(); len(got) != i+1 {
			t.Fatalf("after write %d it reads %v", i, got)
		}
	}
	rafttest.Put(t, c.Members[0].Node, "elsewhere")
	if err := r.Linearize(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := a.sm.Text(); len(got) != 11 {
		t.Errorf("confirmed read misses a write: %v", got)
	}
	c.Leader().Stop(false)
	rafttest.Put(t, r, "after the loss of the leader")
	if got := a.sm.Text(); len(got) != 12 {
		t.Errorf("after the loss: %v", got)
	}
}

func TestRestartGoesOnFromDiskWithoutMasters(t *testing.T) {
	c := masters(t, 1, ringEntries)
	dir := t.TempDir()
	a := follow(t, c, dir, all(c))
	var last uint64
	for i := range 10 {
		last = rafttest.Put(t, c.Members[0].Node, fmt.Sprint(i))
	}
	a.reach(t, last)
	a.stop()
	c.Members[0].Stop(false)
	b := follow(t, c, dir, all(c))
	if got := b.sm.Text(); len(got) != 10 || b.replica.Applied() != last {
		t.Fatalf("came back with %v at %d", got, b.replica.Applied())
	}
	if !b.Status().Stale(time.Now()) {
		t.Error("does not say that its data may be old")
	}
	c.Members[0].Start()
	b.reach(t, rafttest.Put(t, c.Members[0].Node, "more"))
	if got := b.sm.Text(); len(got) != 11 {
		t.Errorf("went on to %v", got)
	}
	b.stop()
	// A damaged file is not trusted.
	path := filepath.Join(dir, snapshotFile)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)/2] ^= 1
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	d := follow(t, c, dir, all(c))
	d.reach(t, b.replica.Applied())
	if got := d.sm.Text(); len(got) != 11 {
		t.Errorf("after damage: %v", got)
	}
}

// A ring of four entries cannot serve a follower that was away: it gets a snapshot, in the same stream.
func TestFollowerOutsideTheRingGetsASnapshot(t *testing.T) {
	c := masters(t, 1, 4)
	m := c.Members[0]
	for i := range 50 {
		rafttest.Put(t, m.Node, fmt.Sprint(i))
	}
	a := follow(t, c, t.TempDir(), all(c))
	for i := range 50 {
		rafttest.Put(t, m.Node, fmt.Sprint("more ", i))
	}
	last := rafttest.Put(t, m.Node, "end")
	a.reach(t, last)
	if !slices.Equal(a.sm.Text(), m.SM.Text()) {
		t.Error("the follower differs")
	}
}

// The follower knows entries that the cluster does not: its log was lost and made anew.
func TestFollowerOfALostLogStartsOver(t *testing.T) {
	c := masters(t, 1, ringEntries)
	dir := t.TempDir()
	a := follow(t, c, dir, all(c))
	for i := range 20 {
		a.reach(t, rafttest.Put(t, c.Members[0].Node, fmt.Sprint("lost ", i)))
	}
	a.stop()
	c.Members[0].Stop(false)
	c.Members[0].Dir = t.TempDir()
	c.Members[0].Start()
	if err := c.Members[0].Node.Bootstrap(c.Servers()); err != nil {
		t.Fatal(err)
	}
	rafttest.Put(t, c.Members[0].Node, "new")
	b := follow(t, c, dir, all(c))
	rafttest.Eventually(t, "the new log", func() bool { return slices.Equal(b.sm.Text(), []string{"new"}) })
}

func TestStrangersGetNoFeed(t *testing.T) {
	c := masters(t, 1, ringEntries)
	s := NewServer(c.Members[0].Node, rafttest.Logger(), nil)
	rec := &response{}
	req, _ := http.NewRequestWithContext(t.Context(), "GET", Path+"?from=0&term=0", nil)
	s.ServeHTTP(rec, req)
	if rec.code != http.StatusForbidden {
		t.Errorf("status %d", rec.code)
	}
}

type response struct {
	bytes.Buffer
	code int
}

func (r *response) Header() http.Header  { return http.Header{} }
func (r *response) WriteHeader(code int) { r.code = code }

// liar serves a hand-made feed.
func liar(t *testing.T, script func(n int, w io.Writer, q string)) (*rafttest.Cluster, func() []string) {
	c := rafttest.New(t, 1)
	srv := wire.NewServer(c.Members[0].Keys, wiretest.Quiet())
	var n atomic.Int32
	srv.HandleHTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		script(int(n.Add(1)), w, r.URL.RawQuery)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	addr := wiretest.Serve(t, srv)
	return c, func() []string { return []string{addr} }
}

func entry(prev, index uint64, text string) []byte {
	env := append([]byte{1, 0}, make([]byte, 24)...)
	env[2], env[3] = byte(index), 1
	return appendItem(nil, item{prev, raft.Entry{Index: index, Term: 1, Data: append(env, text...)}})
}

func TestGapAsksForASnapshotAndAppliesNothingBeyond(t *testing.T) {
	var second atomic.Pointer[string]
	c, addrs := liar(t, func(n int, w io.Writer, q string) {
		if n > 1 {
			second.CompareAndSwap(nil, &q)
			return
		}
		w.Write(entry(0, 3, "a"))
		w.Write(entry(3, 4, "b"))
		w.Write(entry(3, 4, "b")) // delivered twice
		w.Write(entry(6, 7, "beyond the gap"))
	})
	a := follow(t, c, t.TempDir(), addrs)
	rafttest.Eventually(t, "second stream", func() bool { return second.Load() != nil })
	if got := *second.Load(); got != "from=4&term=1&snapshot=1" {
		t.Errorf("asked for %s", got)
	}
	if got := a.sm.Text(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("applied %v", got)
	}
}

func TestSilentMasterIsLeft(t *testing.T) {
	var streams atomic.Int32
	c, addrs := liar(t, func(n int, w io.Writer, _ string) { streams.Store(int32(n)) })
	follow(t, c, t.TempDir(), addrs)
	rafttest.Eventually(t, "second attempt", func() bool { return streams.Load() > 1 })
}

func TestDamagedSnapshotIsNotUsed(t *testing.T) {
	var tries atomic.Int32
	c, addrs := liar(t, func(n int, w io.Writer, _ string) {
		tries.Store(int32(n))
		w.Write(appendFrame(nil, kindSnapshot, []uint64{9, 1}, nil))
		w.Write(appendFrame(nil, kindData, nil, []byte("nonsense")))
		w.Write(appendFrame(nil, kindEnd, nil, []byte{1, 2, 3, 4}))
	})
	dir := t.TempDir()
	a := follow(t, c, dir, addrs)
	rafttest.Eventually(t, "another attempt", func() bool { return tries.Load() > 1 })
	a.stop()
	if a.replica.Applied() != 0 {
		t.Error("took a damaged snapshot")
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestUnknownEntryEndsRun(t *testing.T) {
	c, addrs := liar(t, func(_ int, w io.Writer, _ string) { w.Write(entry(0, 1, "unknown")) })
	d := wire.NewDialer(c.CA.Keychain(t, "a1", pki.Agent))
	defer d.Close()
	f, err := NewFollower(Config{Replica: raft.NewReplica(&rafttest.Journal{}), Client: d.Client(), Masters: addrs, Dir: t.TempDir(), Log: wiretest.Quiet()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := f.Run(ctx); !errors.Is(err, raft.ErrHalted) {
		t.Errorf("ended with %v", err)
	}
}

// A saved state that needs a newer version is no damage: the node stops, and the file stays for that version.
func TestSavedStateOfANewerVersionStopsTheNode(t *testing.T) {
	dir := t.TempDir()
	f, err := NewFollower(Config{Replica: raft.NewReplica(&rafttest.Journal{Lines: []string{"unknown"}}), Dir: dir, Log: wiretest.Quiet()})
	if err != nil {
		t.Fatal(err)
	}
	f.conf.Replica.Apply([]raft.Entry{{Index: 3, Term: 1}})
	if err := f.Save(); err != nil {
		t.Fatal(err)
	}
	replica := raft.NewReplica(&rafttest.Journal{})
	if _, err := NewFollower(Config{Replica: replica, Dir: dir, Log: wiretest.Quiet()}); !errors.Is(err, raft.ErrHalted) {
		t.Errorf("got %v", err)
	}
	if replica.Applied() != 0 {
		t.Error("something was taken over")
	}
	if _, err := os.Stat(filepath.Join(dir, snapshotFile)); err != nil {
		t.Error(err)
	}
}
