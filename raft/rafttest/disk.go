package rafttest

import (
	"maps"
	"math/rand/v2"
	"sync"
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
	mu    sync.Mutex
	rand  *rand.Rand
	write time.Duration // how long a durable write takes
	hung  bool
	full  Fullness
	head  *volume // of the process that runs
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
	d := &Disk{rand: rand.New(rand.NewPCG(seed, 1)), write: 500 * time.Microsecond}
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
	d.set(func() { v.settle(len(v.steps)) })
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
	old.image.redo(under)
	old.image.tear(d.rand)
	snaps := old.kept
	for _, s := range under {
		if s.kind == snapped {
			snaps = append(snaps, s.snap)
		}
	}
	d.head = newVolume(d, old.image, snaps[max(0, len(snaps)-keepSnapshots):])
	d.hung, d.full = false, 0
}

// Wipe leaves an empty disk. The user must have crashed.
func (d *Disk) Wipe() {
	d.set(func() { d.head = newVolume(d, newImage(), nil) })
}

// SetWrite changes how long a durable write takes.
func (d *Disk) SetWrite(t time.Duration) { d.set(func() { d.write = t }) }

// Hang stops or frees all writes.
func (d *Disk) Hang(hung bool) { d.set(func() { d.hung = hung }) }

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
	for d.head == v && (d.hung || time.Now().Before(end)) {
		wait := max(time.Until(end), 10*time.Millisecond)
		if !d.hung {
			wait = time.Until(end)
		}
		d.mu.Unlock()
		time.Sleep(wait)
		d.mu.Lock()
	}
	if d.head == v {
		v.settle(done)
	}
	return err
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
	return v.durable(func() error { return v.WAL.SetUint64(key, n) })
}
