package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"appliance/registry/blob"
	"appliance/registry/ref"
)

// fill is a blob on its way from a master into the local store, with any
// number of readers behind it. The last byte is held back until the whole is
// verified, so that no reader takes wrong bytes for the blob.
type fill struct {
	started chan struct{} // closed when size and upload are set, or err
	done    chan struct{} // closed when stored, or err
	size    int64
	upload  *blob.Upload
	err     error // read after done

	mu        sync.Mutex
	available int64
	more      chan struct{} // closed and replaced when available grows
}

// fill joins the running fill of d or begins one. It belongs to the service,
// not to a request: a client that goes away does not waste what has come.
func (s *Service) fill(d ref.Digest) (*fill, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f, ok := s.fills[d]; ok {
		return f, nil
	}
	if s.ctx.Err() != nil {
		return nil, errStopped
	}
	f := &fill{started: make(chan struct{}), done: make(chan struct{}), more: make(chan struct{})}
	s.fills[d] = f
	s.work.Go(func() {
		f.err = s.run(f, d)
		s.mu.Lock()
		delete(s.fills, d)
		s.mu.Unlock()
		close(f.done)
	})
	return f, nil
}

// run fetches from one holder after the other, going on where the last one
// stopped.
func (s *Service) run(f *fill, d ref.Digest) error {
	begin := sync.OnceFunc(func() { close(f.started) })
	defer begin()
	q, err := s.locate(s.ctx, d)
	if err != nil {
		return err
	}
	defer q.stop()
	from, err := q.next(s.ctx, false)
	if err != nil {
		return err
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-s.ctx.Done():
		return errStopped
	}
	if err := s.Store.CheckSpace(from.size); err != nil {
		return err
	}
	u, err := s.Store.Start()
	if err != nil {
		return err
	}
	defer u.Cancel()
	f.size, f.upload = from.size, u
	begin()
	for {
		err = s.receive(f, from.Master, d)
		if u.Size() == f.size && err == nil {
			break
		}
		if errors.Is(err, blob.ErrNoSpace) {
			return err
		}
		s.Log.Warn("blob transfer broke off", "digest", d, "from", from.URL, "at", u.Size(), "of", f.size, "error", err)
		if from, err = q.next(s.ctx, false); err != nil {
			return fmt.Errorf("%w: every transfer of %s broke off", blob.ErrUnavailable, d)
		}
	}
	if _, err := u.Commit(d); err != nil {
		// %s: a bad peer is not the client's fault.
		return fmt.Errorf("%w: %s sent other bytes than %s: %s", blob.ErrUnavailable, from.URL, d, err)
	}
	f.grow(f.size)
	return nil
}

func (s *Service) receive(f *fill, m Master, d ref.Digest) error {
	body, err := s.fetch(s.ctx, m, d, f.upload.Size())
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = f.upload.AppendFunc(io.LimitReader(body, f.size-f.upload.Size()), func(size int64) { f.grow(min(size, f.size-1)) })
	if err == nil && f.upload.Size() < f.size {
		err = io.ErrUnexpectedEOF
	}
	return err
}

func (f *fill) grow(to int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.available = to
	close(f.more)
	f.more = make(chan struct{})
}

func (f *fill) state() (int64, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.available, f.more
}

func (s *Service) readThrough(ctx context.Context, d ref.Digest) (blob.Content, error) {
	f, err := s.fill(d)
	if err != nil {
		return blob.Content{}, err
	}
	select {
	case <-f.started:
	case <-ctx.Done():
		return blob.Content{}, ctx.Err()
	}
	if f.upload == nil {
		<-f.done
		return blob.Content{}, f.err
	}
	file, err := f.upload.File()
	if err != nil { // finished meanwhile, and moved
		select {
		case <-f.done:
		case <-ctx.Done():
			return blob.Content{}, ctx.Err()
		}
		if f.err != nil {
			return blob.Content{}, f.err
		}
		return s.Store.Open(d)
	}
	r := &fillReader{ctx: ctx, f: f, file: file}
	return blob.Content{Info: blob.Info{Digest: d, Size: f.size}, ReadSeekCloser: r}, nil
}

// fillReader reads a fill from its beginning, waiting for what has not come.
type fillReader struct {
	ctx    context.Context
	f      *fill
	file   *os.File
	offset int64
}

func (r *fillReader) Read(p []byte) (int, error) {
	if r.offset >= r.f.size {
		return 0, io.EOF
	}
	for {
		available, more := r.f.state()
		if r.offset < available {
			n, err := r.file.ReadAt(p[:min(int64(len(p)), available-r.offset)], r.offset)
			r.offset += int64(n)
			return n, err
		}
		select {
		case <-more:
		case <-r.f.done:
			if r.f.err != nil {
				return 0, r.f.err
			}
		case <-r.ctx.Done():
			return 0, r.ctx.Err()
		}
	}
}

func (r *fillReader) Seek(offset int64, whence int) (int64, error) {
	at, err := seek(r.offset, r.f.size, offset, whence)
	if err == nil {
		r.offset = at
	}
	return at, err
}

func (r *fillReader) Close() error { return r.file.Close() }

func seek(at, size, offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += at
	case io.SeekEnd:
		offset += size
	}
	if offset < 0 {
		return 0, errors.New("seek before the beginning")
	}
	return offset, nil
}
