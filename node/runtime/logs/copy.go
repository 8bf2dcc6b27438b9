package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"appliance/node/runtime"
)

// pollEvery is how often a follower looks for more: below what a reader
// notices, and two stat calls each.
const pollEvery = 100 * time.Millisecond

// Copy writes a log directory's content to the writers in opts. With Follow
// it goes on until done is closed and all is copied, or ctx ends.
func Copy(ctx context.Context, dir string, opts runtime.LogOptions, done <-chan struct{}) error {
	var streams []*stream
	for _, s := range []struct {
		name string
		w    io.Writer
	}{{Stdout, opts.Stdout}, {Stderr, opts.Stderr}} {
		if s.w != nil {
			streams = append(streams, &stream{path: filepath.Join(dir, s.name), w: s.w})
		}
	}
	for _, s := range streams {
		if err := s.seek(opts.Tail); err != nil {
			return err
		}
	}
	t := time.NewTicker(pollEvery)
	defer t.Stop()
	for last := !opts.Follow; ; {
		for _, s := range streams {
			if err := s.drain(ctx); err != nil {
				return err
			}
		}
		if last {
			return ctx.Err()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-done:
			last = true
		case <-t.C:
		}
	}
}

// stream is one file being read from an offset that survives rotation.
type stream struct {
	path string
	w    io.Writer
	off  int64
	old  os.FileInfo // the rotated file as last seen: a new one means rotation
}

// rotatedFile is the present ".1", or nil.
func (s *stream) rotatedFile() os.FileInfo {
	st, err := os.Stat(s.path + rotated)
	if err != nil {
		return nil
	}
	return st
}

// catchUp finishes the file that a rotation put aside. It reports false while
// a rotation is in progress.
func (s *stream) catchUp(size int64) (bool, error) {
	if now := s.rotatedFile(); now != nil && (s.old == nil || !os.SameFile(now, s.old)) {
		err := s.copyFile(s.path+rotated, s.off)
		s.off, s.old = 0, now
		return true, err
	}
	if size >= s.off {
		return true, nil
	}
	if _, err := os.Stat(s.path + rotated + ".tmp"); err == nil {
		return false, nil
	}
	s.off = 0 // truncated by somebody else
	return true, nil
}

// seek sets the start, writing what lies in the rotated file. A negative or
// zero tail means from the beginning.
func (s *stream) seek(tail int) error {
	s.old = s.rotatedFile()
	if tail <= 0 {
		return s.copyFile(s.path+rotated, 0)
	}
	off, missing, err := lastLines(s.path, tail)
	if err != nil {
		return err
	}
	s.off = off
	if missing == 0 {
		return nil
	}
	old, _, err := lastLines(s.path+rotated, missing)
	if err != nil {
		return err
	}
	return s.copyFile(s.path+rotated, old)
}

// drain writes everything after the offset.
func (s *stream) drain(ctx context.Context) error {
	f, err := os.Open(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // not started yet, or removed: nothing to say
	}
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	if ok, err := s.catchUp(st.Size()); !ok || err != nil {
		return err
	}
	// A size read before keeps a chatty container from holding us here.
	for left := st.Size() - s.off; left > 0 && ctx.Err() == nil; {
		n, err := io.Copy(s.w, io.NewSectionReader(f, s.off, min(left, maxRead)))
		s.off, left = s.off+n, left-n
		if err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
	}
	return nil
}

func (s *stream) copyFile(path string, from int64) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	defer f.Close()
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	_, err = io.Copy(s.w, f)
	return err
}

// lastLines finds where the last n lines of a file begin, and how many of
// the n the file does not have.
func lastLines(path string, n int) (off int64, missing int, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, n, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("read log: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return 0, 0, fmt.Errorf("read log: %w", err)
	}
	buf := make([]byte, 32<<10)
	end, first := st.Size(), true
	for pos := end; pos > 0; {
		size := min(int64(len(buf)), pos)
		pos -= size
		b := buf[:size]
		if _, err := f.ReadAt(b, pos); err != nil && !errors.Is(err, io.EOF) {
			return 0, 0, fmt.Errorf("read log: %w", err)
		}
		if first { // a newline that ends the file starts no line
			b, first = bytes.TrimSuffix(b, []byte("\n")), false
		}
		for i := bytes.LastIndexByte(b, '\n'); i >= 0; i = bytes.LastIndexByte(b[:i], '\n') {
			if n--; n == 0 {
				return pos + int64(i) + 1, 0, nil
			}
		}
	}
	if end > 0 {
		n-- // the first line has no newline before it
	}
	return 0, n, nil
}
