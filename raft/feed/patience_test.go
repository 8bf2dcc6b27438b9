package feed

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash/crc32"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"appliance/raft"
	"appliance/raft/rafttest"
)

// fakes are masters that are all as far as the log.
type fakes struct {
	log    func() uint64                     // its last index
	feed   func(w io.WriteCloser, at uint64) // a stream of any of them
	second atomic.Int64                      // bytes that the follower's link carries in that time, 0 for any number

	feeds   sync.WaitGroup
	mu      sync.Mutex
	looks   int
	streams []time.Time // when they began
}

func (f *fakes) RoundTrip(r *http.Request) (*http.Response, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	answer := &http.Response{StatusCode: http.StatusOK, Request: r}
	if r.URL.Query().Get("look") != "" {
		f.looks++
		answer.Body = io.NopCloser(bytes.NewReader(f.beat()))
		return answer, nil
	}
	f.streams = append(f.streams, time.Now())
	at, err := strconv.ParseUint(r.URL.Query().Get("from"), 10, 64)
	if err != nil {
		return nil, err
	}
	out, in := io.Pipe()
	context.AfterFunc(r.Context(), func() { out.CloseWithError(context.Canceled) })
	f.feeds.Go(func() { f.feed(in, at) })
	answer.Body = &link{out, &f.second}
	return answer, nil
}

func (f *fakes) beat() []byte {
	return appendFrame(nil, kindHeartbeat, []uint64{f.log(), f.log()}, nil)
}

func (f *fakes) looked() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.looks > 0
}

// link delays what is read.
type link struct {
	io.ReadCloser
	second *atomic.Int64
}

func (l *link) Read(b []byte) (int, error) {
	n, err := l.ReadCloser.Read(b)
	if s := l.second.Load(); s > 0 {
		time.Sleep(time.Duration(n) * time.Second / time.Duration(s))
	}
	return n, err
}

// run follows any of three masters for a while, without the loop that saves snapshots.
func (f *fakes) run(t *testing.T, d time.Duration, meanwhile func(*Follower)) *Follower {
	a, err := NewFollower(Config{
		Replica: raft.NewReplica(&rafttest.Journal{}), Client: &http.Client{Transport: f}, Dir: t.TempDir(), Log: rafttest.Logger(),
		Masters: func() []string { return []string{"m1", "m2", "m3"} },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { meanwhile(a) })
	for ctx.Err() == nil {
		addr, _ := a.pick()
		a.follow(ctx, addr)
	}
	wg.Wait()
	f.feeds.Wait()
	return a
}

// A follower that is slow itself finds every master ahead of its own: it must not go round among them.
func TestSlowFollowerStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		f := &fakes{log: func() uint64 { return uint64(time.Since(began) / (10 * time.Millisecond)) }}
		f.feed = func(w io.WriteCloser, at uint64) {
			var beat time.Time
			for err := error(nil); err == nil; {
				switch {
				case time.Since(beat) >= heartbeat:
					beat = time.Now()
					_, err = w.Write(f.beat())
				case at < f.log():
					_, err = w.Write(appendItem(nil, item{at, raft.Entry{Index: at + 1, Term: 1}}))
					at++
				default:
					time.Sleep(10 * time.Millisecond)
				}
			}
		}
		f.second.Store(2000) // the log needs 2900 and the heartbeats 110
		a := f.run(t, 12*time.Minute, func(a *Follower) {
			time.Sleep(10 * time.Minute)
			if behind := f.log() - a.conf.Replica.Applied(); behind < 200 {
				t.Errorf("it is not slow: %d entries behind", behind)
			}
			f.second.Store(0)
		})
		f.mu.Lock()
		defer f.mu.Unlock()
		least := time.Duration(0) // the first departure costs no patience
		for i, at := range f.streams[1:] {
			stayed := at.Sub(f.streams[i])
			t.Logf("it left after %v", stayed)
			if stayed < least-time.Second { // the next stream does not begin at once
				t.Errorf("it left after %v, want %v at least", stayed, least)
			}
			least = min(max(2*least, doubtEvery), doubtMost)
		}
		if len(f.streams) < 2 {
			t.Error("it never compared its master with the others")
		}
		if a.patience.span != 0 {
			t.Errorf("it has caught up, and may still not leave within %v", a.patience.span)
		}
	})
}

// A snapshot that begins while the follower waits for what another master has is taken to its end.
func TestSnapshotIsNotCutForABetterMaster(t *testing.T) {
	source := raft.NewReplica(&rafttest.Journal{})
	source.Apply([]raft.Entry{{Index: 1, Term: 1}})
	snap, err := source.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Release()
	var state bytes.Buffer
	if _, err := snap.WriteTo(&state); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		f := &fakes{log: func() uint64 { return 1 }}
		f.feed = func(w io.WriteCloser, _ uint64) {
			for !f.looked() {
				w.Write(f.beat())
				time.Sleep(heartbeat)
			}
			w.Write(appendFrame(nil, kindSnapshot, []uint64{1, 1}, nil))
			for _, b := range state.Bytes() {
				time.Sleep(2 * lagLimit / time.Duration(state.Len()))
				w.Write(appendFrame(nil, kindData, nil, []byte{b}))
			}
			w.Write(appendFrame(nil, kindEnd, nil, binary.BigEndian.AppendUint32(nil, crc32.Checksum(state.Bytes(), castagnoli))))
			for err := error(nil); err == nil; time.Sleep(heartbeat) {
				_, err = w.Write(f.beat())
			}
		}
		a := f.run(t, time.Minute, func(*Follower) {})
		if n := len(f.streams); n != 1 || a.conf.Replica.Applied() != 1 {
			t.Errorf("%d streams, at %d", n, a.conf.Replica.Applied())
		}
	})
}

func TestPatienceIsBounded(t *testing.T) {
	var p patience
	now := time.Now()
	if !p.spend(now) {
		t.Error("the first departure is not free")
	}
	for i, want := range []time.Duration{doubtEvery, 2 * doubtEvery, 4 * doubtEvery, 8 * doubtEvery, 16 * doubtEvery, doubtMost, doubtMost} {
		if p.spend(now.Add(want - 1)) {
			t.Errorf("departure %d: too soon, %v are needed", i, want)
		}
		if now = now.Add(want); !p.spend(now) {
			t.Errorf("departure %d: still not after %v", i, want)
		}
	}
	p.renew()
	if p.spend(now.Add(doubtEvery - 1)) {
		t.Error("it leaves too soon after the last departure")
	}
	if !p.spend(now.Add(doubtEvery)) {
		t.Error("it did not forget")
	}
}

// Followers do not gather on the leader, who has applied most.
func TestAnyMasterWithTheIndexIsTaken(t *testing.T) {
	seen := map[string]int{}
	for range 1000 {
		seen[anyWith([]candidate{{"leader", 9}, {"other", 5}, {"late", 4}}, 5)]++
	}
	if seen["leader"] == 0 || seen["other"] == 0 || len(seen) != 2 {
		t.Errorf("taken: %v", seen)
	}
	if got := anyWith([]candidate{{"late", 4}}, 5); got != "" {
		t.Errorf("took %s", got)
	}
}
