package rafttest

import (
	"errors"
	"maps"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	hraft "github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"

	"appliance/raft"
)

// Disk is the disk of a simulated master: the real log store on files in memory. A crash keeps what was
// synced; of what was being written it keeps a part. Safe for concurrent use.
type Disk struct {
	// Panics is called, in a goroutine, when hashicorp/raft would panic: it cannot store its term for lack of
	// space. It must crash the disk. Nil: there is always space for that.
	Panics func()

	mu    sync.Mutex
	rand  *rand.Rand
	write time.Duration // how long a durable write takes
	hung  bool
	held  bool
	full  Fullness
	head  *volume // of the process that runs
	did   Effects
}

// usualWrite is how long a durable write takes without a fault.
const usualWrite = 500 * time.Microsecond

// Effects counts what faults of a disk have done.
type Effects struct {
	NoSpace, NoFiles, NoValues int // writes, new files and changes of metadata that were refused
	Slow, Hung, Paused         int // durable writes that took longer
	Torn, Lost                 int // writes under way at a crash of which a part, or nothing, is left
}

// Effects returns the counts so far.
func (d *Disk) Effects() Effects {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.did
}

// Fullness says what there is no space for.
type Fullness int

const (
	// NoFiles lets writes into files that have their space already go on.
	NoFiles Fullness = iota + 1
	// NoSpace fails all writes, in the middle.
	NoSpace
)

const (
	// segmentSize is so small that segments are sealed and deleted in every run.
	segmentSize   = 16 << 10
	keepSnapshots = 2
)

// NewDisk returns an empty disk whose accidents follow from seed.
func NewDisk(seed uint64) *Disk {
	d := &Disk{rand: rand.New(rand.NewPCG(seed, 1)), write: usualWrite}
	d.head = newVolume(d, newImage(), nil)
	return d
}

// Open returns what is on the disk. There is one user at a time. It fails if the log store cannot read
// what a crash has left, and for lack of space.
func (d *Disk) Open() (raft.Storage, error) {
	d.mu.Lock()
	v := d.head
	d.mu.Unlock()
	was := v.image.state
	now, err := raft.Mend(func(i types.SegmentInfo) (types.WritableFile, error) {
		return vfs{v}.OpenWriter("log", segment.FileName(i))
	}, was, time.Now())
	if err == nil && now.NextSegmentID != was.NextSegmentID {
		err = meta{v}.CommitState(now)
	}
	if err != nil {
		return nil, err
	}
	full := false
	d.set(func() {
		v.settle(len(v.steps))
		full = d.full == NoSpace && d.Panics != nil
	})
	if full { // raft notes its term at the start
		return nil, syscall.ENOSPC
	}
	v.WAL, err = wal.Open("log", wal.WithLogger(hclog.NewNullLogger()), wal.WithSegmentSize(segmentSize),
		wal.WithMetaStore(meta{v}), wal.WithSegmentFiler(segment.NewFiler("log", vfs{v})))
	return v, err
}

// Crash takes the disk away from its user, who goes on with a copy that nobody sees. Of the writes under
// way a random part is on the disk.
func (d *Disk) Crash() {
	d.mu.Lock()
	defer d.mu.Unlock()
	old := d.head
	under := old.steps[:d.rand.IntN(len(old.steps)+1)]
	d.did.Lost += len(old.steps) - len(under)
	old.image.redo(under)
	torn, lost := old.image.tear(d.rand)
	d.did.Torn, d.did.Lost = d.did.Torn+torn, d.did.Lost+lost
	snaps := old.kept
	for _, s := range under {
		if s.kind == snapped {
			snaps = append(snaps, s.snap)
		}
	}
	d.head = newVolume(d, old.image, snaps[max(0, len(snaps)-keepSnapshots):])
	d.hung, d.held, d.full = false, false, 0
}

// Wipe leaves an empty disk. The user must have crashed.
func (d *Disk) Wipe() {
	d.set(func() { d.head = newVolume(d, newImage(), nil) })
}

// Writing reports whether something is being written: a crash may tear it.
func (d *Disk) Writing() (now bool) {
	d.set(func() { now = len(d.head.steps) > 0 })
	return now
}

// SetWrite changes how long a durable write takes; 0 is the usual time.
func (d *Disk) SetWrite(t time.Duration) {
	if t == 0 {
		t = usualWrite
	}
	d.set(func() { d.write = t })
}

// Hang stops or frees all writes.
func (d *Disk) Hang(hung bool) { d.set(func() { d.hung = hung }) }

// Pause holds all writes as if their machine stood still, whether the disk hangs or not.
func (d *Disk) Pause(held bool) { d.set(func() { d.held = held }) }

// Fill makes writes fail for lack of space; 0: not any more.
func (d *Disk) Fill(f Fullness) { d.set(func() { d.full = f }) }

func (d *Disk) set(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

// volume is the content of a disk as one process sees it. Its fields are under the lock of the disk.
type volume struct {
	*wal.WAL
	disk   *Disk
	busy   chan struct{}     // holds a value while something is made durable
	live   map[string][]byte // files as the process sees them
	values map[string][]byte // and the log store's values
	image  *image            // what a crash leaves at least
	steps  []step            // and what it may leave
	snaps  []*snapshot       // oldest first
	kept   []*snapshot       // those of them that are durable
}

var _ raft.Storage = (*volume)(nil)

func newVolume(d *Disk, img *image, snaps []*snapshot) *volume {
	v := &volume{disk: d, busy: make(chan struct{}, 1), live: map[string][]byte{}, values: maps.Clone(img.values), image: img, snaps: snaps, kept: snaps}
	for name, data := range img.files {
		v.live[name] = append([]byte(nil), data...)
	}
	return v
}

// durable does f, and returns when what f did would survive a crash. The steps of f take no time; the wait
// comes after them, so that the store holds no lock meanwhile: who waits for one stops simulated time.
func (v *volume) durable(f func() error) error {
	v.busy <- struct{}{}
	defer func() { <-v.busy }()
	err := f()
	d := v.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	done := len(v.steps)
	end := time.Now().Add(d.write/2 + time.Duration(d.rand.Int64N(int64(d.write))))
	var did Effects // to this write
	for d.head == v && (d.hung || d.held || time.Now().Before(end)) {
		wait := time.Until(end)
		if d.hung || d.held {
			wait = max(wait, 10*time.Millisecond)
		}
		once(d.write > usualWrite, &did.Slow, &d.did.Slow)
		once(d.hung, &did.Hung, &d.did.Hung)
		once(d.held, &did.Paused, &d.did.Paused)
		d.mu.Unlock()
		time.Sleep(wait)
		d.mu.Lock()
	}
	if d.head == v {
		v.settle(done)
	}
	return err
}

// once counts a write that something slows down, the first time.
func once(slow bool, of, all *int) {
	if slow && *of == 0 {
		*of = 1
		*all++
	}
}

// settle makes the first n steps certain.
func (v *volume) settle(n int) {
	for _, s := range v.steps[:n] {
		if s.kind == snapped {
			v.kept = append(v.kept, s.snap)
		}
	}
	v.kept = v.kept[max(0, len(v.kept)-keepSnapshots):]
	v.image.redo(v.steps[:n])
	v.steps = append([]step(nil), v.steps[n:]...)
}

// note remembers a step, with the disk's lock or without a second user.
func (v *volume) note(s step) {
	v.disk.mu.Lock()
	defer v.disk.mu.Unlock()
	v.steps = append(v.steps, s)
}

// StoreLog implements raft.Storage, like the methods below.
func (v *volume) StoreLog(l *hraft.Log) error { return v.StoreLogs([]*hraft.Log{l}) }

func (v *volume) StoreLogs(logs []*hraft.Log) error {
	return v.durable(func() error { return v.WAL.StoreLogs(logs) })
}

func (v *volume) DeleteRange(low, high uint64) error {
	return v.durable(func() error { return v.WAL.DeleteRange(low, high) })
}

func (v *volume) Set(key, value []byte) error {
	return v.durable(func() error { return v.WAL.Set(key, value) })
}

func (v *volume) SetUint64(key []byte, n uint64) error {
	err := v.durable(func() error { return v.WAL.SetUint64(key, n) })
	if string(key) != termKey || !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	go v.disk.Panics()
	for head := v; head == v; v.disk.set(func() { head = v.disk.head }) {
		time.Sleep(time.Millisecond)
	}
	return nil // to a process that is no more
}

// termKey is where hashicorp/raft keeps its term.
const termKey = "CurrentTerm"
