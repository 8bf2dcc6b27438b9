// Package lyingfs is a disk that can be told to be full, slow or hung: a FUSE
// file system that passes everything to a directory. It is for tests of what
// sits on it. The process that serves it is the disk: if it dies, so does the
// disk.
//
// Honest, it adds about 35 microseconds to a write of 4 KiB and 110 to a write
// with fsync that takes 150 on a virtual disk (BenchmarkDisk); reads come from the
// kernel's page cache, also while the disk hangs. Names and attributes can always
// be read, as if they were cached, too.
package lyingfs

import (
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Behaviour is how the disk lies. The zero value is honest.
type Behaviour struct {
	Fsync time.Duration `json:"fsync_ns,omitempty"` // added to each fsync
	Write time.Duration `json:"write_ns,omitempty"` // added to each write
	Full  bool          `json:"full,omitempty"`     // no space for new data
	Hung  bool          `json:"hung,omitempty"`     // what changes something, or needs the disk to be read, waits
	Until time.Time     `json:"until,omitzero"`     // then it is honest again, whoever forgets to say so
}

// pollEvery is how soon what waits sees that the disk changed.
const pollEvery = 5 * time.Millisecond

// disk is the behaviour in force. Safe for concurrent use.
type disk struct {
	hits atomic.Uint64 // operations refused or delayed

	mu   sync.Mutex
	what Behaviour
}

func (d *disk) set(b Behaviour) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.what = b
}

// now is the behaviour at this moment.
func (d *disk) now() Behaviour {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.what.Until.IsZero() && time.Now().After(d.what.Until) {
		d.what = Behaviour{}
	}
	return d.what
}

// write is passed by every operation that needs space: wait is what it costs,
// the error is what it meets.
func (d *disk) write() syscall.Errno {
	b := d.hang()
	if b.Full {
		d.hits.Add(1)
		return syscall.ENOSPC
	}
	d.delay(b.Write)
	return 0
}

// sync is passed by every fsync.
func (d *disk) sync() {
	b := d.hang()
	d.delay(b.Fsync)
}

// change is passed by what changes names or attributes, which needs no space.
func (d *disk) change() { d.hang() }

// hang waits as long as the disk does. There is no other end: a process in
// such a call cannot be killed either, as with a real disk.
func (d *disk) hang() Behaviour {
	b := d.now()
	if b.Hung {
		d.hits.Add(1)
	}
	for ; b.Hung; b = d.now() {
		time.Sleep(pollEvery)
	}
	return b
}

// delay waits in small steps, so that a healed disk is fast at once.
func (d *disk) delay(t time.Duration) {
	if t == 0 {
		return
	}
	d.hits.Add(1)
	for end := time.Now().Add(t); ; {
		left := time.Until(end)
		if left <= 0 || d.now() == (Behaviour{}) {
			return
		}
		time.Sleep(min(left, 20*time.Millisecond))
	}
}
