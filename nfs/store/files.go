package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
)

// maxOpenFiles bounds the descriptors a volume keeps open between requests.
const maxOpenFiles = 256

// files are the flat data files of a volume, one per inode that ever had data.
type files struct {
	dir  string
	mu   sync.Mutex
	byNo map[Ino]*file
	open int
}

// file is the data of one inode. mu orders writes and truncations like the log does: it is taken
// before the volume's lock.
type file struct {
	mu    sync.RWMutex
	once  sync.Mutex // guards f
	f     *os.File
	fresh bool // cut to the inode's size once since start
	users int  // guarded by files.mu
	dirty bool // guarded by files.mu
}

func newFiles(dir string) *files { return &files{dir: dir, byNo: map[Ino]*file{}} }

func (fs *files) path(ino Ino) string {
	return filepath.Join(fs.dir, fmt.Sprintf("%02x", uint64(ino)%256), strconv.FormatUint(uint64(ino), 10))
}

// acquire returns the file of an inode; the caller must release it.
func (fs *files) acquire(ino Ino) *file {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f := fs.byNo[ino]
	if f == nil {
		f = &file{}
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
		if f.users == 0 && f.f != nil {
			f.f.Close()
			f.f = nil
			fs.open--
		}
	}
}

func (fs *files) markDirty(f *file) {
	fs.mu.Lock()
	f.dirty = true
	fs.mu.Unlock()
}

// takeDirty returns and clears the set of files written since the last call, each acquired.
func (fs *files) takeDirty() map[Ino]*file {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	out := map[Ino]*file{}
	for ino, f := range fs.byNo {
		if f.dirty {
			f.dirty = false
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
		if h, err = fs.create(ino); err != nil {
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
	fs.mu.Lock()
	fs.open++
	fs.mu.Unlock()
	return h, nil
}

func (fs *files) create(ino Ino) (*os.File, error) {
	p := fs.path(ino)
	h, err := os.OpenFile(p, os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, os.ErrNotExist) {
		if err := os.Mkdir(filepath.Dir(p), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
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

// read fills buf from off; bytes that were never written are zero.
func (fs *files) read(ino Ino, f *file, size, off uint64, buf []byte) error {
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
		if f.f != nil {
			f.f.Close()
			fs.open--
		}
		delete(fs.byNo, ino)
	}
	fs.mu.Unlock()
	err := os.Remove(fs.path(ino))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// sync makes dirty files durable, together with the directories that name them.
func (fs *files) sync(dirty map[Ino]*file) error {
	dirs := map[string]bool{fs.dir: true}
	var errs []error
	for ino, f := range dirty {
		f.mu.Lock() // a write logged before the checkpoint has reached the file when we get the lock
		f.mu.Unlock()
		f.once.Lock()
		h := f.f
		f.once.Unlock()
		if h == nil { // shed or freed meanwhile
			h, _ = os.OpenFile(fs.path(ino), os.O_RDWR, 0)
			if h == nil {
				fs.release(f)
				continue
			}
			defer h.Close()
		}
		errs = append(errs, h.Sync())
		dirs[filepath.Dir(fs.path(ino))] = true
		fs.release(f)
	}
	for d := range dirs {
		errs = append(errs, syncDir(d))
	}
	return errors.Join(errs...)
}

// sweep deletes data files that no inode owns: freed shortly before a crash.
func (fs *files) sweep(owned func(Ino) bool) error {
	dirs, err := os.ReadDir(fs.dir)
	if err != nil {
		return err
	}
	for _, d := range dirs {
		names, err := os.ReadDir(filepath.Join(fs.dir, d.Name()))
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
	return nil
}

func (fs *files) close() {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for _, f := range fs.byNo {
		if f.f != nil {
			f.f.Close()
			f.f = nil
		}
	}
	fs.open = 0
}
