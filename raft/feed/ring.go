package feed

import (
	"sort"
	"sync"

	"appliance/raft"
)

const (
	// ringEntries and ringBytes bound the memory of a master. At 10,000 entries a second a follower
	// may be silent for 1.6 s before it needs a snapshot.
	ringEntries = 16 << 10
	ringBytes   = 16 << 20
)

// ring holds the last applied entries. It is the observer of a replica; followers read from it at their
// own pace. Safe for concurrent use.
type ring struct {
	maxEntries, maxBytes int

	mu       sync.Mutex
	items    []item // contiguous: each prev is the index before
	bytes    int
	base     uint64 // index applied before the first item
	baseTerm uint64 // 0 if unknown
	wake     chan struct{}
}

func newRing(entries, bytes int) *ring {
	return &ring{maxEntries: entries, maxBytes: bytes, wake: make(chan struct{})}
}

// Applied implements raft.Observer.
func (r *ring) Applied(prev uint64, entries []raft.Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range entries {
		r.items = append(r.items, item{prev, e})
		r.bytes += len(e.Data)
		prev = e.Index
	}
	r.trim()
	r.notify()
}

// trim drops the oldest items beyond the bounds. Slicing forward keeps it cheap: append moves the rest
// to fresh memory now and then.
func (r *ring) trim() {
	n := 0
	for len(r.items)-n > r.maxEntries || r.bytes > r.maxBytes && n < len(r.items) {
		r.bytes -= len(r.items[n].Data)
		r.base, r.baseTerm = r.items[n].Index, r.items[n].Term
		r.items[n] = item{}
		n++
	}
	r.items = r.items[n:]
}

// Restored implements raft.Observer.
func (r *ring) Restored(index uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.items, r.bytes, r.base, r.baseTerm = nil, 0, index, 0
	r.notify()
}

func (r *ring) notify() {
	close(r.wake)
	r.wake = make(chan struct{})
}

// place says where a position is in relation to the ring.
type place int

const (
	within place = iota // what follows is in the ring, or nothing follows yet
	ahead               // the master is behind that position
	gone                // the entries after it are no longer there, or it is no position of this log
)

// locate finds out whether a follower at index, applied in term, can be served. term 0 is not compared.
func (r *ring) locate(index, term uint64) place {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, atTerm := r.base, r.baseTerm
	if i := r.after(index); i > 0 {
		at, atTerm = r.items[i-1].Index, r.items[i-1].Term
	}
	switch {
	case index > r.last():
		return ahead
	case index != at, term != 0 && atTerm != 0 && term != atTerm:
		return gone
	}
	return within
}

// next returns up to max entries that follow index, or the channel that is closed when there may be more.
func (r *ring) next(index uint64, max int) (items []item, where place, wake <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := r.after(index)
	switch {
	case index > r.last():
		return nil, ahead, r.wake
	case index == r.last():
		return nil, within, r.wake
	case i == len(r.items) || r.items[i].prev != index:
		return nil, gone, r.wake
	}
	end := min(i+max, len(r.items))
	return append([]item(nil), r.items[i:end]...), within, r.wake
}

func (r *ring) last() uint64 {
	if n := len(r.items); n > 0 {
		return r.items[n-1].Index
	}
	return r.base
}

// after returns the position of the first item above index.
func (r *ring) after(index uint64) int {
	return sort.Search(len(r.items), func(i int) bool { return r.items[i].Index > index })
}
