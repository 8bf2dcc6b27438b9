package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"sync"

	"appliance/nfs/xdr"

	"golang.org/x/sys/unix"
)

// Batch is a run of consecutive log records on their way to disk and to the backups.
type Batch struct {
	Epoch, First, Last uint64
	Frames             [][]byte // header, body, header, body, ... as in the log file; read only
	Bytes              int
	Sync               bool // somebody waits for durability
}

// Shipper carries batches to the backups, in order, before anything in them is acknowledged. Ship
// returns nil when every in-sync backup has the batch durably, or when a smaller in-sync set was
// recorded. An error stops the volume. frames must not be kept or changed.
type Shipper interface {
	Ship(b Batch) error
}

// ErrFailed wraps the cause after which a volume refuses all work. What is on disk is consistent;
// restart the server when the cause is removed.
var ErrFailed = errors.New("volume stopped")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const (
	frameHead = 8       // length and CRC of the body
	flushSize = 4 << 20 // unsynced bytes after which an unstable writer flushes: bounds memory
)

// syncFile is what the log needs of a file; tests inject failures.
type syncFile interface {
	Writev(bufs [][]byte) error
	Sync() error
	Close() error
}

// wal is the write-ahead log: segments named by their first LSN. Whoever waits for durability first
// becomes the leader and commits for all who came meanwhile (group commit).
type wal struct {
	dir  string
	ship Shipper
	open func(path string) (syncFile, error)

	mu      sync.Mutex
	done    sync.Cond
	f       syncFile
	epoch   uint64
	next    uint64 // LSN of the next record
	written uint64 // in the segment file
	durable uint64 // fsynced and shipped
	segLen  int64  // bytes in all segments since the last checkpoint
	buf     [][]byte
	bufLen  int
	busy    bool // a leader is at work
	err     error
}

func segmentPath(dir string, first uint64) string {
	return filepath.Join(dir, fmt.Sprintf("wal-%020d", first))
}

// newWAL starts a fresh segment that begins with LSN next.
func newWAL(dir string, next, epoch uint64, ship Shipper, open func(string) (syncFile, error)) (*wal, error) {
	w := &wal{dir: dir, ship: ship, open: open, epoch: epoch, next: next, written: next - 1, durable: next - 1}
	w.done.L = &w.mu
	var err error
	w.f, err = w.startSegment(next)
	return w, err
}

func (w *wal) startSegment(first uint64) (syncFile, error) {
	f, err := w.open(segmentPath(w.dir, first))
	if err != nil {
		return nil, err
	}
	return f, syncDir(w.dir)
}

// append gives r its LSN and queues it. The caller serialises append and Table.Apply.
func (w *wal) append(r *Record) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	r.LSN, r.Epoch = w.next, w.epoch
	e := xdr.Encoder{B: make([]byte, frameHead, frameHead+256)}
	r.encodeHead(&e)
	body := e.B[frameHead:]
	binary.BigEndian.PutUint32(e.B, uint32(len(body)+len(r.Data)))
	crc := crc32.Update(crc32.Checksum(body, castagnoli), castagnoli, r.Data)
	binary.BigEndian.PutUint32(e.B[4:], crc)
	w.buf = append(w.buf, e.B)
	if len(r.Data) > 0 {
		w.buf = append(w.buf, r.Data)
	}
	w.bufLen += len(e.B) + len(r.Data)
	w.next++
	return nil
}

// wait returns when everything up to lsn is durable here and on the backups.
func (w *wal) wait(lsn uint64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.err == nil && w.durable < lsn {
		w.lead(true)
	}
	return w.err
}

// relieve writes the queue out, without fsync, once it is large.
func (w *wal) relieve() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.err == nil && w.bufLen > flushSize {
		w.lead(false)
	}
	return w.err
}

// lead commits what is queued, or waits for the present leader. Called and returns with mu held.
func (w *wal) lead(sync bool) {
	if w.busy {
		w.done.Wait()
		return
	}
	w.busy = true
	b := Batch{Epoch: w.epoch, First: w.written + 1, Last: w.next - 1, Frames: w.buf, Bytes: w.bufLen, Sync: sync}
	w.buf, w.bufLen = nil, 0
	w.mu.Unlock()
	err := w.commit(b)
	w.mu.Lock()
	w.busy = false
	w.segLen += int64(b.Bytes)
	if err != nil && w.err == nil {
		w.err = fmt.Errorf("%w: write-ahead log: %w; free or replace the disk, then restart", ErrFailed, err)
	}
	if err == nil {
		w.written = b.Last
		if sync {
			w.durable = b.Last
		}
	}
	w.done.Broadcast()
}

func (w *wal) commit(b Batch) error {
	shipped := make(chan error, 1)
	if w.ship != nil {
		go func() { shipped <- w.ship.Ship(b) }()
	} else {
		shipped <- nil
	}
	err := w.f.Writev(b.Frames)
	if err == nil && b.Sync {
		err = w.f.Sync()
	}
	return errors.Join(err, <-shipped)
}

// rotate closes the segment after making it durable and starts a new one at next. Records up to the
// returned LSN are in older segments.
func (w *wal) rotate() (last uint64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.err == nil && (w.durable < w.next-1 || w.busy) {
		w.lead(true)
	}
	if w.err != nil {
		return 0, w.err
	}
	f, err := w.startSegment(w.next)
	if err != nil {
		return 0, err
	}
	w.f.Close()
	w.f, w.segLen = f, 0
	return w.next - 1, nil
}

func (w *wal) size() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.segLen + int64(w.bufLen)
}

func (w *wal) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	w.done.Broadcast()
}

func (w *wal) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

func (w *wal) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.err == nil && (w.durable < w.next-1 || w.busy) {
		w.lead(true)
	}
	for w.busy {
		w.done.Wait()
	}
	err := w.err
	if w.err == nil {
		w.err = fmt.Errorf("%w: closed", ErrFailed)
	}
	w.done.Broadcast()
	return errors.Join(err, w.f.Close())
}

// osFile is a log segment on disk.
type osFile struct{ f *os.File }

func openSegment(path string) (syncFile, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// Writev gathers small slices into one write and writes large ones as they are.
func (o osFile) Writev(bufs [][]byte) error {
	const large = 64 << 10
	var small []byte
	for _, b := range bufs {
		if len(b) < large {
			small = append(small, b...)
			continue
		}
		if err := o.writeAll(small, b); err != nil {
			return err
		}
		small = small[:0]
	}
	return o.writeAll(small)
}

func (o osFile) writeAll(bufs ...[]byte) error {
	for _, b := range bufs {
		if _, err := o.f.Write(b); err != nil {
			return err
		}
	}
	return nil
}

func (o osFile) Sync() error  { return unix.Fdatasync(int(o.f.Fd())) }
func (o osFile) Close() error { return o.f.Close() }

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
