// Package blob is a content-addressed store in one directory. A blob is on
// disk, verified and fsynced (file and directory) before Commit or Put
// returns, and is verified again the first time a process opens it. Uploads
// resume after a crash of the process.
//
// Layout: blobs/<algorithm>/<hex> and uploads/<id>.{data,state}. The directory
// is the only index; nothing is cached that could disagree with it.
package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"appliance/registry/ref"

	"golang.org/x/sync/singleflight"
)

var (
	// ErrUnknown: the store has no such blob.
	ErrUnknown = errors.New("blob unknown")
	// ErrCorrupt: the bytes on disk do not hash to the name. The copy has been
	// dropped; another node's copy is the cure.
	ErrCorrupt = errors.New("blob corrupt on disk")
	// ErrDigest: the bytes received do not hash to the digest promised.
	ErrDigest = errors.New("digest mismatch")
	// ErrTooLarge: more bytes than Options.MaxBlob.
	ErrTooLarge = errors.New("blob too large")
	// ErrNoSpace: writing would eat into the reserve of the file system.
	ErrNoSpace = errors.New("no space for blobs")
	// ErrUnavailable: too few other holders of copies can be reached now. Try
	// again; nothing is lost.
	ErrUnavailable = errors.New("copies unavailable")
)

const (
	// bufferSize: 1 MiB costs 1.14 CPU s/GiB for a push, 32 KiB costs 1.57
	// (hash inline, while the bytes are in the cache).
	bufferSize = 1 << 20
	// defaultMaxBlob is above any layer seen in practice, below a disk.
	defaultMaxBlob = 64 << 30
	// maxTrusted bounds the table of blobs already verified by this process
	// (about 150 bytes each).
	maxTrusted = 1 << 16
)

var buffers = sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }}

// Info describes a stored blob. Modified is when it was stored or last
// touched; garbage collection counts its grace from there.
type Info struct {
	Digest   ref.Digest
	Size     int64
	Modified time.Time
}

// Content is an open blob; the caller closes it. Reads go on to work when the
// blob is deleted meanwhile.
type Content struct {
	Info
	io.ReadSeekCloser
}

// Options of a store. The zero value is fit for production.
type Options struct {
	MaxBlob int64                        // bytes; 0 means 64 GiB
	Reserve func(disk Space) (min int64) // bytes to leave free; nil means DefaultReserve
	Now     func() time.Time             // nil means time.Now
	Log     *slog.Logger                 // nil discards
}

// Store is safe for concurrent use. One process at a time may open a
// directory.
type Store struct {
	root    string
	max     int64
	reserve func(Space) int64
	now     func() time.Time
	log     *slog.Logger
	sync    map[string]*groupSync // by algorithm
	check   singleflight.Group
	reap    sync.RWMutex // write-held by DeleteOlder: nothing is made younger meanwhile

	mu      sync.Mutex
	trusted map[ref.Digest]stamp
	uploads map[string]*Upload
}

// stamp is what a verified file looked like; a change means: verify again.
type stamp struct {
	size     int64
	modified time.Time
}

// New opens or makes the store in dir (0700).
func New(dir string, o Options) (*Store, error) {
	s := &Store{
		root: dir, max: o.MaxBlob, reserve: o.Reserve, now: o.Now, log: o.Log,
		sync: map[string]*groupSync{}, trusted: map[ref.Digest]stamp{}, uploads: map[string]*Upload{},
	}
	if s.max <= 0 {
		s.max = defaultMaxBlob
	}
	if s.reserve == nil {
		s.reserve = DefaultReserve
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	for _, algorithm := range []string{ref.SHA256, ref.SHA512} {
		path := filepath.Join(dir, "blobs", algorithm)
		if err := os.MkdirAll(path, 0o700); err != nil {
			return nil, fmt.Errorf("blob store: %w", err)
		}
		s.sync[algorithm] = &groupSync{path: path}
	}
	if err := os.MkdirAll(filepath.Join(dir, "uploads"), 0o700); err != nil {
		return nil, fmt.Errorf("blob store: %w", err)
	}
	return s, nil
}

// path is safe because a digest is parsed strictly; parse it again, so that a
// Digest made by conversion from a client's text cannot leave the directory.
func (s *Store) path(d ref.Digest) (string, error) {
	if _, err := ref.ParseDigest(string(d)); err != nil {
		return "", err
	}
	return filepath.Join(s.root, "blobs", d.Algorithm(), d.Hex()), nil
}

// Stat says whether the blob is here, without reading it.
func (s *Store) Stat(d ref.Digest) (Info, error) {
	path, err := s.path(d)
	if err != nil {
		return Info{}, err
	}
	st, err := os.Stat(path)
	if err != nil {
		return Info{}, unknown(d, err)
	}
	return Info{d, st.Size(), st.ModTime()}, nil
}

func unknown(d ref.Digest, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s", ErrUnknown, d)
	}
	return fmt.Errorf("blob %s: %w", d, err)
}

// Open returns the blob's bytes. The first Open in the life of a process reads
// and hashes the whole blob (0.6 s/GiB); a copy that fails is dropped and
// reported as ErrCorrupt.
func (s *Store) Open(d ref.Digest) (Content, error) {
	path, err := s.path(d)
	if err != nil {
		return Content{}, err
	}
	f, err := os.Open(path)
	if err != nil {
		return Content{}, unknown(d, err)
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return Content{}, fmt.Errorf("blob %s: %w", d, err)
	}
	if !s.isTrusted(d, st) {
		if err := s.Verify(d); err != nil {
			f.Close()
			return Content{}, err
		}
	}
	return Content{Info{d, st.Size(), st.ModTime()}, f}, nil
}

func (s *Store) isTrusted(d ref.Digest, st fs.FileInfo) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.trusted[d] == stamp{st.Size(), st.ModTime()}
}

func (s *Store) trust(d ref.Digest, st fs.FileInfo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.trusted) >= maxTrusted {
		clear(s.trusted)
	}
	s.trusted[d] = stamp{st.Size(), st.ModTime()}
}

// Verify reads the blob and compares its hash with its name. A copy that does
// not match is removed, so that the next read fetches a good one.
func (s *Store) Verify(d ref.Digest) error {
	_, err, _ := s.check.Do(string(d), func() (any, error) { return nil, s.verify(d) })
	return err
}

func (s *Store) verify(d ref.Digest) error {
	path, err := s.path(d)
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return unknown(d, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("blob %s: %w", d, err)
	}
	h := d.Hash()
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	if _, err := io.CopyBuffer(h, onlyReader{f}, *buffer); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrCorrupt, d, err)
	}
	if got := ref.FromHash(h); got != d {
		s.log.Warn("blob corrupt on disk, copy dropped", "digest", d, "found", got, "bytes", st.Size())
		if err := s.removeSame(path, st); err != nil {
			return fmt.Errorf("%w: %s; removing it failed: %w", ErrCorrupt, d, err)
		}
		return fmt.Errorf("%w: %s", ErrCorrupt, d)
	}
	s.trust(d, st)
	return nil
}

// removeSame leaves a good copy alone that was renamed over the bad one
// while that was being read.
func (s *Store) removeSame(path string, bad fs.FileInfo) error {
	now, err := os.Stat(path)
	if err != nil || !os.SameFile(now, bad) {
		return nil
	}
	return os.Remove(path)
}

// onlyReader hides WriteTo, which would ignore the pooled buffer.
type onlyReader struct{ io.Reader }

// Touch restarts the blob's grace of garbage collection: a client has been
// told that the blob is here and may soon refer to it.
func (s *Store) Touch(d ref.Digest) error {
	// Once in ten minutes is enough for a grace of an hour.
	const often = 10 * time.Minute
	path, err := s.path(d)
	if err != nil {
		return err
	}
	s.reap.RLock()
	defer s.reap.RUnlock()
	before, err := os.Stat(path)
	if err != nil {
		return unknown(d, err)
	}
	now := s.now()
	if now.Sub(before.ModTime()) < often {
		return nil
	}
	verified := s.isTrusted(d, before)
	if err := os.Chtimes(path, now, now); err != nil {
		return unknown(d, err)
	}
	if after, err := os.Stat(path); err == nil && verified && os.SameFile(before, after) {
		s.trust(d, after)
	}
	return nil
}

// Delete removes the blob. Readers that have it open go on.
func (s *Store) Delete(d ref.Digest) error {
	path, err := s.path(d)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return unknown(d, err)
	}
	s.mu.Lock()
	delete(s.trusted, d)
	s.mu.Unlock()
	return s.sync[d.Algorithm()].Sync()
}

// DeleteOlder removes the blob if it was last stored or touched before limit,
// and says whether it did: for garbage collection, whose list of blobs is old
// by the time it deletes.
func (s *Store) DeleteOlder(d ref.Digest, limit time.Time) (bool, error) {
	s.reap.Lock()
	defer s.reap.Unlock()
	info, err := s.Stat(d)
	if errors.Is(err, ErrUnknown) || err == nil && !info.Modified.Before(limit) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, s.Delete(d)
}

// List visits every blob in no order. Files that are not blobs are skipped.
func (s *Store) List(ctx context.Context) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		for _, algorithm := range []string{ref.SHA256, ref.SHA512} {
			if !s.list(ctx, algorithm, yield) {
				return
			}
		}
	}
}

func (s *Store) list(ctx context.Context, algorithm string, yield func(Info, error) bool) bool {
	dir, err := os.Open(filepath.Join(s.root, "blobs", algorithm))
	if err != nil {
		return yield(Info{}, err)
	}
	defer dir.Close()
	for {
		const batch = 512 // bounds memory for stores of any size
		entries, err := dir.ReadDir(batch)
		for _, e := range entries {
			d, parseErr := ref.ParseDigest(algorithm + ":" + e.Name())
			st, statErr := e.Info()
			if parseErr != nil || statErr != nil {
				continue // not ours, or deleted since
			}
			if !yield(Info{d, st.Size(), st.ModTime()}, nil) {
				return false
			}
		}
		switch {
		case err == io.EOF:
			return true
		case err == nil:
			err = ctx.Err()
		}
		if err != nil {
			return yield(Info{}, err) && false
		}
	}
}

// Put stores r under d: verified and durable when it returns.
func (s *Store) Put(d ref.Digest, r io.Reader) (Info, error) {
	if _, err := ref.ParseDigest(string(d)); err != nil {
		return Info{}, err
	}
	u, err := s.start(false)
	if err != nil {
		return Info{}, err
	}
	defer u.Cancel()
	if _, err := u.Append(r); err != nil {
		return Info{}, err
	}
	return u.Commit(d)
}
