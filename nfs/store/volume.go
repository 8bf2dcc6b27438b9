package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"appliance/nfs/proto"
)

const (
	// DefaultReserve is kept free on the disk, so that removals, client records and checkpoints
	// still succeed when writers get "no space".
	DefaultReserve = 64 << 20
	// DefaultCheckpoint is the log size after which the table is snapshotted and the log cut.
	DefaultCheckpoint = 64 << 20
	checkpointPoll    = 200 * time.Millisecond
	// checkpointEvery is when there is one after fewer writes: data that changed since has no checksum.
	checkpointEvery = 5 * time.Minute
	maxFileSize     = 1 << 42 // below the limit of ext4 with 4 KiB blocks
)

// Options of a volume. The zero value is usable except for Now.
type Options struct {
	Log        *slog.Logger
	Now        func() time.Time
	Shipper    Shipper // nil: a single copy
	Epoch      uint64  // of the primary; stamped on every record
	Reserve    uint64  // bytes kept free on the disk; 0 means DefaultReserve
	Checkpoint int64   // log bytes between checkpoints; 0 means DefaultCheckpoint
	MaxBytes   uint64  // sum of file sizes; 0 means unlimited
	Mode       uint32  // of a new root directory
	UID, GID   uint32  // of a new root directory

	openSegment func(string) (syncFile, error)
}

// Volume is one open volume. All methods are safe for concurrent use. Methods that change
// something return the LSN to Wait for before the change may be acknowledged.
type Volume struct {
	o     Options
	dir   string
	mu    sync.RWMutex
	t     *Table
	wal   *wal
	files *files
	pins  map[Ino]int
	space space
	trash []freed // data files to delete, under mu

	stop    context.CancelFunc
	stopped chan struct{}
}

type freed struct {
	ino Ino
	lsn uint64
}

// Open loads a volume from dir, or makes an empty one. It replays the log and cuts a torn tail.
func Open(dir string, o Options) (*Volume, error) {
	o = o.withDefaults()
	for _, d := range []string{dir, filepath.Join(dir, "data")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
	}
	v := &Volume{o: o, dir: dir, files: newFiles(dir), pins: map[Ino]int{}, stopped: make(chan struct{})}
	v.space = space{dir: dir, reserve: o.Reserve, now: o.Now}
	if err := v.load(); err != nil {
		v.files.close()
		return nil, fmt.Errorf("volume in %s: %w", dir, err)
	}
	if o.Epoch == 0 {
		o.Epoch = v.t.epoch
	}
	var err error
	v.wal, err = newWAL(dir, v.t.lsn+1, max(o.Epoch, v.t.epoch), o.Shipper, o.openSegment)
	if err != nil {
		return nil, fmt.Errorf("volume in %s: %w", dir, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	v.stop = cancel
	go v.background(ctx)
	return v, nil
}

func (o Options) withDefaults() Options {
	if o.Reserve == 0 {
		o.Reserve = DefaultReserve
	}
	if o.Checkpoint == 0 {
		o.Checkpoint = DefaultCheckpoint
	}
	if o.Mode == 0 {
		o.Mode = 0o755
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.openSegment == nil {
		o.openSegment = openSegment
	}
	return o
}

// Wait returns when everything up to lsn is durable on every in-sync replica.
func (v *Volume) Wait(lsn uint64) error { return v.wal.wait(lsn) }

// Err is not nil once the volume has stopped.
func (v *Volume) Err() error { return v.wal.failure() }

// Relieve bounds the memory of unstable writes; call it after a reply that waited for nothing.
func (v *Volume) Relieve() error { return v.wal.relieve() }

// Close checkpoints and closes; the next Open has nothing to replay.
func (v *Volume) Close() error {
	v.stop()
	<-v.stopped
	err := v.wal.failure()
	if err == nil {
		err = v.Checkpoint()
	}
	err = errors.Join(err, v.wal.close())
	v.files.close()
	return err
}

// background checkpoints and deletes the data of freed inodes until the volume is closed.
func (v *Volume) background(ctx context.Context) {
	defer close(v.stopped)
	if err := v.files.sweep(v.has); err != nil {
		v.o.Log.Warn("volume: cannot look for unowned data files", "dir", v.dir, "err", err)
	}
	tick := time.NewTicker(checkpointPoll)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		v.emptyTrash()
		size := v.wal.size()
		if (size > v.o.Checkpoint || size > 0 && time.Since(last) > checkpointEvery) && v.wal.failure() == nil {
			last = time.Now()
			err := v.Checkpoint()
			if errors.Is(err, syscall.ENOSPC) { // the log is whole; the next checkpoint may succeed
				v.o.Log.Warn("volume: no space for a checkpoint", "dir", v.dir)
			} else if err != nil {
				v.fail(fmt.Errorf("checkpoint: %w", err))
			}
		}
	}
}

func (v *Volume) has(ino Ino) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.t.inodes[ino] != nil
}

func (v *Volume) emptyTrash() {
	v.mu.Lock()
	trash := v.trash
	v.trash = nil
	v.mu.Unlock()
	for _, f := range trash {
		if v.Wait(f.lsn) != nil {
			return // the next start sweeps
		}
		if err := v.files.remove(f.ino); err != nil {
			v.o.Log.Warn("volume: cannot delete data file", "dir", v.dir, "ino", f.ino, "err", err)
		}
	}
}

// fail stops the volume: table, data files and log may disagree in memory, so nothing more is
// acknowledged. The log on disk is the truth for the next start.
func (v *Volume) fail(err error) error {
	err = fmt.Errorf("%w: %w", ErrFailed, err)
	v.o.Log.Error("volume stopped; remove the cause and restart", "dir", v.dir, "err", err)
	v.wal.fail(err)
	return err
}

// commit logs and applies a checked record. Called with mu held.
func (v *Volume) commit(r *Record) (uint64, error) {
	if err := v.wal.append(r); err != nil {
		return 0, err
	}
	if err := v.t.Apply(r); err != nil {
		return 0, v.fail(err)
	}
	return r.LSN, nil
}

func (v *Volume) now() int64 { return v.o.Now().UnixNano() }

func (v *Volume) get(ino Ino) (*inode, error) {
	if n := v.t.inodes[ino]; n != nil {
		return n, nil
	}
	return nil, syscall.ESTALE
}

func (v *Volume) getDir(ino Ino) (*inode, error) {
	n, err := v.get(ino)
	if err != nil {
		return nil, err
	}
	if n.dir == nil {
		return nil, syscall.ENOTDIR
	}
	return n, nil
}

// Attr returns an inode's attributes.
func (v *Volume) Attr(ino Ino) (Attr, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	n, err := v.get(ino)
	if err != nil {
		return Attr{}, err
	}
	return n.Attr, nil
}

// Lookup finds a name in a directory. settled is the directory's, for an answer of ENOENT.
func (v *Volume) Lookup(dir Ino, name string) (a Attr, settled uint64, err error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	d, err := v.getDir(dir)
	if err != nil {
		return a, 0, err
	}
	e := d.dir.names[name]
	if e == nil {
		return a, d.Settled, syscall.ENOENT
	}
	return v.t.inodes[e.Ino].Attr, d.Settled, nil
}

// Readdir lists up to max entries with cookies above cookie, and the directory's attributes.
func (v *Volume) Readdir(dir Ino, cookie uint64, max int) ([]DirEntry, Attr, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	d, err := v.getDir(dir)
	if err != nil {
		return nil, Attr{}, err
	}
	return d.dir.after(cookie, max), d.Attr, nil
}

// Readlink returns a symbolic link's target.
func (v *Volume) Readlink(ino Ino) (string, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	n, err := v.get(ino)
	if err != nil {
		return "", err
	}
	if n.Kind != proto.Lnk {
		return "", syscall.EINVAL
	}
	return n.target, nil
}

// Done says whether a request was executed before a restart. See Origin.
func (v *Volume) Done(o Origin) (Ino, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.t.Done(o)
}

// Seen says whether some operation of the request was executed.
func (v *Volume) Seen(o Origin) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	s := v.t.origins[o.Session][o.Slot]
	return s != nil && s.seq == o.Seq
}

// Origins are the sessions whose requests the table remembers.
func (v *Volume) Origins() []proto.SessionID {
	v.mu.RLock()
	defer v.mu.RUnlock()
	var out []proto.SessionID
	for s := range v.t.origins {
		out = append(out, s)
	}
	return out
}

// Clients are those that may reclaim state after a restart.
func (v *Volume) Clients() []string {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return slices.Sorted(maps.Keys(v.t.clients))
}

// Usage describes a volume's size.
type Usage struct {
	Inodes, Bytes, LSN, Epoch uint64
	LogBytes                  int64
	Free, Total               uint64 // of the disk or the quota
}

// Usage returns the volume's size.
func (v *Volume) Usage() Usage {
	v.mu.Lock()
	defer v.mu.Unlock()
	free, total := v.space.usable()
	if q := v.o.MaxBytes; q != 0 {
		free, total = min(free, q-min(q, v.t.bytes)), q
	}
	return Usage{uint64(len(v.t.inodes)), v.t.bytes, v.t.lsn, v.t.epoch, v.wal.size(), free, total}
}
