package feed

import (
	"bufio"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"appliance/raft"
	"appliance/raft/rafttest"
)

// quiet is a master of which nothing is asked but its heartbeat.
type quiet struct{ replica *raft.Replica }

func (q quiet) Replica() *raft.Replica { return q.replica }
func (quiet) CommitIndex() uint64      { return 0 }
func (quiet) Established() bool        { return true }
func (quiet) Behind() bool             { return false }

// flushes is an answer that counts how often it is sent on.
type flushes struct {
	http.ResponseWriter
	n atomic.Int32
}

func (f *flushes) Write(b []byte) (int, error) { return len(b), nil }
func (f *flushes) Flush()                      { f.n.Add(1) }

func TestFollowersAreNotWokenForEachHandful(t *testing.T) {
	for _, c := range []struct {
		name  string
		burst int   // entries that come together at first
		sent  []int // writes after that, at each of the single entries that follow by the millisecond
	}{
		{"one change after another is sent at once", 1, []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}},
		{"a busy log is sent every 10 ms", 8, []int{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2}},
		{"a log in a hurry does not wait", streamBatch, []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, w, gone := newRing(ringEntries, ringBytes), &flushes{}, make(chan struct{})
				s := newServer(quiet{raft.NewReplica(&rafttest.Journal{})}, rafttest.Logger(), nil, r)
				st := &stream{server: s, out: bufio.NewWriter(w), ctl: http.NewResponseController(w), gone: gone}
				go st.run()
				synctest.Wait()
				w.n.Store(0) // the first heartbeat
				last := uint64(0)
				add := func(n int) {
					var list []raft.Entry
					for i := range n {
						list = append(list, raft.Entry{Index: last + uint64(i) + 1, Term: 1})
					}
					r.Applied(last, list)
					last += uint64(n)
					synctest.Wait()
				}
				add(c.burst)
				for i, want := range c.sent {
					if got := int(w.n.Load()); got != want {
						t.Fatalf("%d writes after %d ms, want %d", got, i, want)
					}
					time.Sleep(time.Millisecond)
					add(1)
				}
				close(gone)
			})
		})
	}
}
