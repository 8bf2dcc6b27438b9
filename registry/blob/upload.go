package blob

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"appliance/registry/ref"
)

var (
	// ErrUploadUnknown: no such upload, or it has expired.
	ErrUploadUnknown = errors.New("upload unknown")
	// ErrUploadBusy: another request writes to this upload at the moment.
	ErrUploadBusy = errors.New("upload in use by another request")
	// ErrTooManyUploads: start fewer at once, or wait for old ones to expire.
	ErrTooManyUploads = errors.New("too many uploads in progress")
)

const (
	// maxUploads bounds memory and litter; 1000 nodes pushing at once fit.
	maxUploads = 4096
	// checkpointEvery bounds what a crash makes the store hash again.
	checkpointEvery = 16 << 20
)

// Upload is a blob on its way in. One request at a time may write to it;
// another gets ErrUploadBusy. It survives the process: see Store.Resume.
type Upload struct {
	ID string

	store   *Store
	durable bool // keeps a state file for Resume
	size    atomic.Int64
	used    atomic.Int64 // unix nanoseconds of the last use

	mu   sync.Mutex // held while writing; guards what follows
	hash hash.Hash  // sha256 of the first size bytes
	done bool       // committed or cancelled
}

// Start begins an upload.
func (s *Store) Start() (*Upload, error) { return s.start(true) }

func (s *Store) start(durable bool) (*Upload, error) {
	if err := s.CheckSpace(0); err != nil {
		return nil, err
	}
	var random [16]byte
	rand.Read(random[:]) // never fails (crypto/rand)
	u := &Upload{ID: hex.EncodeToString(random[:]), store: s, durable: durable, hash: sha256.New()}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.uploads) >= maxUploads {
		return nil, fmt.Errorf("%w: %d", ErrTooManyUploads, len(s.uploads))
	}
	f, err := os.OpenFile(u.dataPath(), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, s.noSpace(fmt.Errorf("upload: %w", err))
	}
	f.Close()
	u.used.Store(s.now().UnixNano())
	s.uploads[u.ID] = u
	return u, nil
}

// Resume finds an upload by the ID it was started with, also one of an earlier
// process.
func (s *Store) Resume(id string) (*Upload, error) {
	if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" {
		return nil, ErrUploadUnknown
	}
	found, err, _ := s.check.Do(id, func() (any, error) { return s.resume(id) })
	if err != nil {
		return nil, err
	}
	u := found.(*Upload)
	u.used.Store(s.now().UnixNano())
	return u, nil
}

// resume runs once per id at a time, without the lock: it may hash gigabytes.
func (s *Store) resume(id string) (*Upload, error) {
	s.mu.Lock()
	u, ok := s.uploads[id]
	s.mu.Unlock()
	if ok {
		return u, nil
	}
	u = &Upload{ID: id, store: s, durable: true}
	if err := u.restore(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.uploads[id] = u
	s.mu.Unlock()
	return u, nil
}

func (u *Upload) dataPath() string {
	return filepath.Join(u.store.root, "uploads", u.ID+".data")
}

// Size is the number of bytes received so far.
func (u *Upload) Size() int64 { return u.size.Load() }

// File opens the bytes received so far for reading, beside the writer. It
// stays readable after Commit.
func (u *Upload) File() (*os.File, error) { return os.Open(u.dataPath()) }

// Append adds what r yields and returns the number of bytes added, which stay
// also when it fails: the client goes on from Size.
func (u *Upload) Append(r io.Reader) (int64, error) { return u.AppendFunc(r, nil) }

// AppendFunc is Append that calls progress, if any, with the size after each
// piece written.
func (u *Upload) AppendFunc(r io.Reader, progress func(size int64)) (int64, error) {
	if !u.mu.TryLock() {
		return 0, ErrUploadBusy
	}
	defer u.mu.Unlock()
	if u.done {
		return 0, ErrUploadUnknown
	}
	f, err := os.OpenFile(u.dataPath(), os.O_WRONLY, 0)
	if err != nil {
		return 0, ErrUploadUnknown
	}
	defer f.Close()
	start := u.Size()
	err = u.copy(f, r, progress)
	if stateErr := u.checkpoint(); err == nil {
		err = stateErr
	}
	u.used.Store(u.store.now().UnixNano())
	return u.Size() - start, err
}

func (u *Upload) copy(f *os.File, r io.Reader, progress func(int64)) error {
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	saved := u.Size()
	for {
		n, readErr := fill(r, *buffer)
		if err := u.write(f, (*buffer)[:n]); err != nil {
			return err
		}
		if progress != nil && n > 0 {
			progress(u.Size())
		}
		switch {
		case readErr == io.EOF:
			return nil
		case readErr != nil:
			return fmt.Errorf("upload %s interrupted at byte %d: %w", u.ID, u.Size(), readErr)
		}
		if u.Size()-saved >= checkpointEvery {
			startWriteback(f, saved, u.Size()-saved)
			if err := u.checkpoint(); err != nil {
				return err
			}
			saved = u.Size()
		}
	}
}

// fill reads until p is full. Unlike io.ReadFull it keeps io.EOF apart from
// io.ErrUnexpectedEOF, by which net/http reports a connection cut short.
func fill(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var k int
		k, err = r.Read(p[n:])
		n += k
	}
	return n, err
}

func (u *Upload) write(f *os.File, p []byte) error {
	if len(p) == 0 {
		return nil
	}
	size := u.Size()
	if size+int64(len(p)) > u.store.max {
		return fmt.Errorf("%w: more than %d bytes", ErrTooLarge, u.store.max)
	}
	if err := u.store.CheckSpace(int64(len(p))); err != nil {
		return err
	}
	if _, err := f.WriteAt(p, size); err != nil {
		return u.store.noSpace(fmt.Errorf("upload %s: %w", u.ID, err))
	}
	u.hash.Write(p)
	u.size.Add(int64(len(p)))
	return nil
}

// noSpace gives the kernel's "disk full" the name this package uses.
func (s *Store) noSpace(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}

// Commit verifies the upload against d and makes it a durable blob: file and
// directory are fsynced when it returns. An upload that does not match is
// thrown away, for it can never become right.
func (u *Upload) Commit(d ref.Digest) (Info, error) {
	path, err := u.store.path(d)
	if err != nil {
		return Info{}, err
	}
	if !u.mu.TryLock() {
		return Info{}, ErrUploadBusy
	}
	defer u.mu.Unlock()
	if u.done {
		return Info{}, ErrUploadUnknown
	}
	f, err := os.OpenFile(u.dataPath(), os.O_RDWR, 0)
	if err != nil {
		return Info{}, ErrUploadUnknown
	}
	defer f.Close()
	if err := u.verify(f, d); err != nil {
		if errors.Is(err, ErrDigest) {
			u.discard()
		}
		return Info{}, err
	}
	if err := f.Sync(); err != nil {
		return Info{}, u.store.noSpace(fmt.Errorf("upload %s: %w", u.ID, err))
	}
	if err := u.publish(path); err != nil {
		return Info{}, fmt.Errorf("upload %s: %w", u.ID, err)
	}
	if err := u.store.sync[d.Algorithm()].Sync(); err != nil {
		return Info{}, fmt.Errorf("upload %s: %w", u.ID, err)
	}
	u.discard()
	st, err := f.Stat()
	if err != nil {
		return Info{}, fmt.Errorf("upload %s: %w", u.ID, err)
	}
	u.store.trust(d, st)
	return Info{d, st.Size(), st.ModTime()}, nil
}

// publish gives the file its name, and the age of a new blob: its bytes may
// have come hours ago.
func (u *Upload) publish(path string) error {
	u.store.reap.RLock()
	defer u.store.reap.RUnlock()
	now := u.store.now()
	if err := os.Chtimes(u.dataPath(), now, now); err != nil {
		return err
	}
	return os.Rename(u.dataPath(), path)
}

func (u *Upload) verify(f *os.File, d ref.Digest) error {
	if err := f.Truncate(u.Size()); err != nil { // a failed write may have left a tail
		return fmt.Errorf("upload %s: %w", u.ID, err)
	}
	h := u.hash
	if d.Algorithm() != ref.SHA256 {
		// Rare, so the second hash is not kept inline.
		h = d.Hash()
		if _, err := io.Copy(h, f); err != nil {
			return fmt.Errorf("upload %s: %w", u.ID, err)
		}
	}
	if got := ref.FromHash(h); got != d {
		return fmt.Errorf("%w: promised %s, received %d bytes of %s", ErrDigest, d, u.Size(), got)
	}
	return nil
}

// Cancel throws the upload away. It does nothing after Commit, and waits for
// a writer.
func (u *Upload) Cancel() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.discard()
}

func (u *Upload) discard() {
	if u.done {
		return
	}
	u.done = true
	u.store.mu.Lock()
	delete(u.store.uploads, u.ID)
	u.store.mu.Unlock()
	os.Remove(u.dataPath())
	if u.durable {
		os.Remove(u.statePath())
	}
}

// Expire throws away uploads, of this and earlier processes, that nobody has
// used for idle. It returns how many.
func (s *Store) Expire(idle time.Duration) (int, error) {
	entries, err := os.ReadDir(filepath.Join(s.root, "uploads"))
	if err != nil {
		return 0, fmt.Errorf("expire uploads: %w", err)
	}
	expired, limit := 0, s.now().Add(-idle)
	for _, e := range entries {
		id, _, _ := strings.Cut(e.Name(), ".")
		st, err := e.Info()
		s.mu.Lock()
		u := s.uploads[id]
		s.mu.Unlock()
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case u == nil && err == nil && st.ModTime().Before(limit):
			os.Remove(filepath.Join(s.root, "uploads", e.Name()))
			if strings.HasSuffix(e.Name(), ".data") {
				expired++
			}
		case u != nil && u.used.Load() < limit.UnixNano() && u.mu.TryLock():
			u.discard()
			u.mu.Unlock()
			expired++
		}
	}
	return expired, nil
}
