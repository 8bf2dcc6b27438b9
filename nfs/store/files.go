package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
)

// maxOpenFiles bounds the descriptors a volume keeps open between requests, up to two a file: data and sums.
const maxOpenFiles = 512

// files are the flat data files of a volume, one per inode that ever had data.
type files struct {
	dir    string
	sumDir string
	mu     sync.Mutex
	byNo   map[Ino]*file
	open   int // descriptors of data files and of sums

	syncDir func(string) error // tests count its calls
}

// file is the data of one inode. mu orders writes and truncations like the log does: it is taken
// before the volume's lock.
type file struct {
	mu      sync.RWMutex
	once    sync.Mutex // guards the next four
	f       *os.File
	fresh   bool     // cut to the inode's size once since start
	sums    *os.File // see sums.go
	sumless bool     // there are none

	// The rest is guarded by files.mu.
	users   int
	dirty   bool
	stale   blocks   // changed since the last checkpoint
	closing blocks   // the stale ones of the checkpoint under way
	damaged []uint64 // blocks, sorted; see damage.go
}

// newFiles are those of the volume in dir.
func newFiles(dir string) *files {
	return &files{dir: filepath.Join(dir, "data"), sumDir: filepath.Join(dir, sumsDir), byNo: map[Ino]*file{}, syncDir: syncDir}
}

func (fs *files) path(ino Ino) string {
	return filepath.Join(fs.dir, fmt.Sprintf("%02x", uint64(ino)%256), strconv.FormatUint(uint64(ino), 10))
}

// acquire returns the file of an inode; the caller must release it.
func (fs *files) acquire(ino Ino) *file {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f := fs.byNo[ino]
	if f == nil {
		f = &file{stale: noBlocks(), closing: noBlocks()}
		fs.byNo[ino] = f
	}
	f.users++
	return f
}

func (fs *files) release(f *file) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f.users--
	if fs.open > maxOpenFiles {
		fs.shed()
	}
}

// shed closes idle files until half the limit is left. Called with mu held.
func (fs *files) shed() {
	for _, f := range fs.byNo {
		if fs.open <= maxOpenFiles/2 {
			return
		}
		if f.users == 0 {
			fs.closeFile(f)
		}
	}
}

// closeFile closes what an idle file has open. Called with mu held.
func (fs *files) closeFile(f *file) {
	if f.f != nil {
		f.f.Close()
		f.f = nil
		fs.open--
	}
	if f.sums != nil {
		f.sums.Close()
		f.sums = nil
		fs.open--
	}
}

func (fs *files) opened() {
	fs.mu.Lock()
	fs.open++
	fs.mu.Unlock()
}

func (fs *files) markDirty(f *file) {
	fs.mu.Lock()
	f.dirty = true
	fs.mu.Unlock()
}

// takeDirty returns and clears the set of files written since the last call, each acquired. Exactly one call of
// sync follows.
func (fs *files) takeDirty() map[Ino]*file {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	out := map[Ino]*file{}
	for ino, f := range fs.byNo {
		if f.dirty {
			f.dirty = false
			f.closing.merge(f.stale)
			f.stale = noBlocks()
			f.users++
			out[ino] = f
		}
	}
	return out
}

// handle opens the data file. size is the inode's size: bytes behind it are left-overs of writes
// whose log records did not survive a crash, and must not show up when the file grows again.
func (fs *files) handle(ino Ino, f *file, size uint64, create bool) (*os.File, error) {
	f.once.Lock()
	defer f.once.Unlock()
	if f.f != nil {
		return f.f, nil
	}
	h, err := os.OpenFile(fs.path(ino), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		if !create {
			f.fresh = true
			return nil, nil
		}
		if h, err = createFile(fs.path(ino)); err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, err
	}
	if !f.fresh {
		if st, err := h.Stat(); err != nil || uint64(st.Size()) > size {
			if err = errors.Join(err, h.Truncate(int64(size))); err != nil {
				h.Close()
				return nil, err
			}
		}
		f.fresh = true
	}
	f.f = h
	fs.opened()
	return h, nil
}

func createFile(p string) (*os.File, error) {
	h, err := os.OpenFile(p, os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			return nil, err
		}
		h, err = os.OpenFile(p, os.O_RDWR|os.O_CREATE, 0o600)
	}
	return h, err
}

// write stores data; oldSize is the inode's size before the write was logged.
func (fs *files) write(ino Ino, f *file, oldSize, off uint64, data []byte) error {
	h, err := fs.handle(ino, f, oldSize, true)
	if err != nil {
		return err
	}
	fs.markDirty(f)
	_, err = h.WriteAt(data, int64(off))
	return err
}

// read fills buf from off and checks what it reads; bytes that were never written are zero. The error
// wraps EIO if they are damaged.
func (fs *files) read(ino Ino, f *file, size, off uint64, buf []byte) error {
	if len(buf) == 0 {
		return nil
	}
	from, to := span(off, uint64(len(buf)))
	sums, any, err := fs.sumsOf(ino, f, from, to)
	if err != nil {
		return err
	}
	if !any {
		return fs.fill(ino, f, size, off, buf)
	}
	whole := buf
	if off%sumBlock != 0 || len(buf)%sumBlock != 0 {
		whole = make([]byte, (to-from)*sumBlock)
	}
	if err := fs.fill(ino, f, size, from*sumBlock, whole); err != nil {
		return err
	}
	if err := fs.verify(ino, from, whole, sums); err != nil {
		clear(buf)
		return err
	}
	copy(buf, whole[off-from*sumBlock:])
	return nil
}

// fill reads without a look at the sums.
func (fs *files) fill(ino Ino, f *file, size, off uint64, buf []byte) error {
	h, err := fs.handle(ino, f, size, false)
	if err != nil {
		return err
	}
	n := 0
	if h != nil {
		n, err = h.ReadAt(buf, int64(off))
		if err != nil && err != io.EOF {
			return err
		}
	}
	clear(buf[n:])
	return nil
}

func (fs *files) truncate(ino Ino, f *file, oldSize, size uint64) error {
	h, err := fs.handle(ino, f, oldSize, false)
	if err != nil || h == nil {
		return err
	}
	fs.markDirty(f)
	return h.Truncate(int64(size))
}

// remove deletes the data of a freed inode, which nobody can reach any more.
func (fs *files) remove(ino Ino) error {
	fs.mu.Lock()
	if f := fs.byNo[ino]; f != nil && f.users == 0 {
		fs.closeFile(f)
		delete(fs.byNo, ino)
	}
	fs.mu.Unlock()
	for _, p := range []string{fs.path(ino), fs.sumPath(ino)} {
		if err := os.Remove(p); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// sync makes dirty files durable, then their sums, and at last the directories that name both, each once. Without
// space for the sums it does all the rest, and the next call makes up for them.
func (fs *files) sync(dirty map[Ino]*file) error {
	dirs := map[string]bool{fs.dir: true, fs.sumDir: true}
	var errs []error
	for ino, f := range dirty {
		err := fs.syncFile(ino, f)
		fs.mu.Lock()
		if errors.Is(err, syscall.ENOSPC) {
			f.stale.merge(f.closing)
			f.dirty = true
		}
		f.closing = noBlocks()
		fs.mu.Unlock()
		fs.release(f)
		errs = append(errs, err)
		dirs[filepath.Dir(fs.path(ino))] = true
		dirs[filepath.Dir(fs.sumPath(ino))] = true
	}
	return errors.Join(append(errs, fs.syncDirs(dirs))...)
}

// syncDirs fails so that the volume stops, also for want of space: the next checkpoint would not try again.
func (fs *files) syncDirs(dirs map[string]bool) error {
	for d := range dirs {
		if err := fs.syncDir(d); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("make a directory durable: %v", err)
		}
	}
	return nil
}

func (fs *files) syncFile(ino Ino, f *file) error {
	f.mu.Lock() // a write logged before the checkpoint has reached the file when we get the lock
	f.mu.Unlock()
	f.once.Lock()
	h := f.f
	f.once.Unlock()
	if h == nil { // shed or freed meanwhile
		var err error
		h, err = os.OpenFile(fs.path(ino), os.O_RDWR, 0)
		if errors.Is(err, os.ErrNotExist) {
			return fs.renew(ino, f, nil)
		}
		if err != nil {
			return err
		}
		defer h.Close()
	}
	if err := h.Sync(); err != nil {
		return fmt.Errorf("make a data file durable: %v", err) // also for want of space: what is not synced now, never will be
	}
	return fs.renew(ino, f, h)
}

// sweep deletes data files and sums that no inode owns: freed shortly before a crash.
func (fs *files) sweep(owned func(Ino) bool) error {
	for _, top := range []string{fs.dir, fs.sumDir} {
		dirs, err := os.ReadDir(top)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		for _, d := range dirs {
			names, err := os.ReadDir(filepath.Join(top, d.Name()))
			if err != nil {
				return err
			}
			for _, n := range names {
				ino, err := strconv.ParseUint(n.Name(), 10, 64)
				if err == nil && !owned(Ino(ino)) {
					fs.remove(Ino(ino))
				}
			}
		}
	}
	return nil
}

func (fs *files) close() {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for _, f := range fs.byNo {
		fs.closeFile(f)
	}
}
