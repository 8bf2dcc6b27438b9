package rafttest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"

	hraft "github.com/hashicorp/raft"

	"appliance/raft"
)

// Disk is the disk of a simulated master. It keeps everything in memory; what was being written when it
// crashes is kept in part. Safe for concurrent use.
type Disk struct {
	mu    sync.Mutex
	rand  *rand.Rand
	write time.Duration // how long a durable write takes
	hung  bool
	full  bool
	head  *volume // of the process that runs
}

// NewDisk returns an empty disk whose accidents follow from seed.
func NewDisk(seed uint64) *Disk {
	d := &Disk{rand: rand.New(rand.NewPCG(seed, 1)), write: 500 * time.Microsecond}
	d.head = &volume{disk: d, logs: map[uint64]*hraft.Log{}, values: map[string][]byte{}}
	return d
}

// Open returns what is on the disk. There is one user at a time.
func (d *Disk) Open() raft.Storage {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.head
}

// Crash takes the disk away from its user, who goes on with a copy that nobody sees. Of the writes under
// way a random part is on the disk: none, all, or the first entries of a batch.
func (d *Disk) Crash() {
	d.mu.Lock()
	defer d.mu.Unlock()
	old := d.head
	next := &volume{disk: d, logs: maps.Clone(old.logs), first: old.first, last: old.last, values: maps.Clone(old.values), snaps: append([]*snapshot(nil), old.snaps...)}
	for _, w := range old.pending {
		next.apply(w, d.rand.IntN(w.steps()+1))
	}
	d.head, d.hung, d.full = next, false, false
}

// SetWrite changes how long a durable write takes.
func (d *Disk) SetWrite(t time.Duration) { d.set(func() { d.write = t }) }

// Hang stops or frees all writes.
func (d *Disk) Hang(hung bool) { d.set(func() { d.hung = hung }) }

// Fill makes writes to the log fail for lack of space, or not any more.
func (d *Disk) Fill(full bool) { d.set(func() { d.full = full }) }

func (d *Disk) set(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

// volume is the content of a disk as one process sees it. Its fields are under the lock of the disk.
type volume struct {
	disk        *Disk
	logs        map[uint64]*hraft.Log
	first, last uint64
	values      map[string][]byte
	snaps       []*snapshot // oldest first
	pending     []*change
}

var _ raft.Storage = (*volume)(nil)

// change is one durable write: entries, a value, or a range that goes.
type change struct {
	logs     []*hraft.Log
	key      string
	value    []byte
	min, max uint64 // if key is "" and there are no logs
	snap     *snapshot
}

func (c *change) steps() int { return max(1, len(c.logs)) }

// apply does the first n steps of a change.
func (v *volume) apply(c *change, n int) {
	switch {
	case n == 0:
	case c.snap != nil:
		v.snaps = append(v.snaps, c.snap)
		v.snaps = v.snaps[max(0, len(v.snaps)-2):]
	case c.key != "":
		v.values[c.key] = c.value
	case len(c.logs) > 0:
		for _, l := range c.logs[:n] {
			v.logs[l.Index] = l
			v.last = l.Index
			if v.first == 0 {
				v.first = l.Index
			}
		}
	default:
		v.remove(c.min, c.max)
	}
}

func (v *volume) remove(low, high uint64) {
	for i := low; i <= high; i++ {
		delete(v.logs, i)
	}
	if low <= v.first {
		v.first = high + 1
	}
	if high >= v.last {
		v.last = low - 1
	}
	if v.first > v.last {
		v.first, v.last = 0, 0
	}
}

// commit makes a change durable, which takes its time.
func (v *volume) commit(c *change) error {
	d := v.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.full && d.head == v && len(c.logs) > 0 {
		return syscall.ENOSPC
	}
	v.pending = append(v.pending, c)
	end := time.Now().Add(d.write/2 + time.Duration(d.rand.Int64N(int64(d.write))))
	for d.head == v && (d.hung || time.Now().Before(end)) {
		pause := max(time.Until(end), 10*time.Millisecond)
		if !d.hung {
			pause = time.Until(end)
		}
		d.mu.Unlock()
		time.Sleep(pause)
		d.mu.Lock()
	}
	for i, w := range v.pending {
		if w == c {
			v.pending = append(v.pending[:i], v.pending[i+1:]...)
			break
		}
	}
	v.apply(c, c.steps())
	return nil
}

func (v *volume) lock() func() { v.disk.mu.Lock(); return v.disk.mu.Unlock }

// Close implements raft.Storage.
func (v *volume) Close() error { return nil }

// IsMonotonic says that there are no gaps.
func (v *volume) IsMonotonic() bool { return true }

// FirstIndex implements raft.Storage, like the methods below.
func (v *volume) FirstIndex() (uint64, error) { defer v.lock()(); return v.first, nil }

func (v *volume) LastIndex() (uint64, error) { defer v.lock()(); return v.last, nil }

func (v *volume) GetLog(index uint64, out *hraft.Log) error {
	defer v.lock()()
	l := v.logs[index]
	if l == nil {
		return hraft.ErrLogNotFound
	}
	*out = *l
	return nil
}

func (v *volume) StoreLog(l *hraft.Log) error { return v.StoreLogs([]*hraft.Log{l}) }

func (v *volume) StoreLogs(logs []*hraft.Log) error {
	unlock := v.lock()
	last := v.last
	unlock()
	c := &change{}
	for i, l := range logs {
		if last != 0 && l.Index != last+1+uint64(i) {
			return fmt.Errorf("entry %d does not follow entry %d", l.Index, last+uint64(i))
		}
		own := *l
		own.Data = bytes.Clone(l.Data)
		c.logs = append(c.logs, &own)
	}
	return v.commit(c)
}

func (v *volume) DeleteRange(low, high uint64) error { return v.commit(&change{min: low, max: high}) }

func (v *volume) Set(key, value []byte) error {
	return v.commit(&change{key: string(key), value: bytes.Clone(value)})
}

func (v *volume) Get(key []byte) ([]byte, error) { defer v.lock()(); return v.values[string(key)], nil }

func (v *volume) SetUint64(key []byte, n uint64) error { return v.Set(key, fmt.Append(nil, n)) }

func (v *volume) GetUint64(key []byte) (n uint64, err error) {
	raw, _ := v.Get(key)
	if raw != nil {
		_, err = fmt.Sscan(string(raw), &n)
	}
	return n, err
}

// snapshot is one in the making or done.
type snapshot struct {
	volume *volume
	meta   hraft.SnapshotMeta
	data   bytes.Buffer
}

func (v *volume) Create(version hraft.SnapshotVersion, index, term uint64, conf hraft.Configuration, confIndex uint64, _ hraft.Transport) (hraft.SnapshotSink, error) {
	id := fmt.Sprintf("%d-%d-%d", term, index, time.Now().UnixNano())
	return &snapshot{volume: v, meta: hraft.SnapshotMeta{
		Version: version, ID: id, Index: index, Term: term, Configuration: conf, ConfigurationIndex: confIndex,
	}}, nil
}

func (s *snapshot) Write(b []byte) (int, error) { return s.data.Write(b) }

func (s *snapshot) ID() string { return s.meta.ID }

func (s *snapshot) Cancel() error { return nil }

// Close makes the snapshot durable as a whole, as a rename does.
func (s *snapshot) Close() error {
	s.meta.Size = int64(s.data.Len())
	return s.volume.commit(&change{snap: s})
}

func (v *volume) List() ([]*hraft.SnapshotMeta, error) {
	defer v.lock()()
	var out []*hraft.SnapshotMeta
	for i := len(v.snaps) - 1; i >= 0; i-- {
		meta := v.snaps[i].meta
		out = append(out, &meta)
	}
	return out, nil
}

func (v *volume) Open(id string) (*hraft.SnapshotMeta, io.ReadCloser, error) {
	defer v.lock()()
	for _, s := range v.snaps {
		if s.meta.ID == id {
			meta := s.meta
			return &meta, io.NopCloser(bytes.NewReader(s.data.Bytes())), nil
		}
	}
	return nil, nil, errors.New("no such snapshot")
}
