package client

import (
	"syscall"

	"appliance/nfs/proto"
)

// Read fills buf from off and returns how much there was.
func (f *File) Read(i Interrupt, off uint64, buf []byte) (int, error) {
	s, err := f.state()
	if err != nil {
		return 0, err
	}
	n := 0
	for n < len(buf) {
		got, eof, err := f.readOnce(i, s, off+uint64(n), buf[n:])
		if err != nil {
			return 0, err
		}
		n += got
		if eof || got == 0 {
			break
		}
	}
	return n, nil
}

func (f *File) readOnce(i Interrupt, s *openState, off uint64, buf []byte) (n int, eof bool, err error) {
	// buf belongs to the caller, who may be gone when an interrupted request is answered.
	var data []byte
	err = f.c.doOpen(i, s, request{func(o *ops) {
		o.putfh(s.fh)
		o.op(proto.OpRead)
		s.sid.Encode(&o.e)
		o.e.U64(off)
		o.e.U32(uint32(min(len(buf), proto.MaxIO)))
	}, func(r *results) error {
		if err := r.putfh(); err != nil {
			return err
		}
		if err := r.next(proto.OpRead); err != nil {
			return err
		}
		eof = r.d.Bool()
		data = r.d.Opaque(proto.MaxIO)
		return r.d.Err()
	}})
	if err != nil {
		return 0, false, err
	}
	return copy(buf, data), eof, nil
}

// encodeWrite returns where in the encoder the data lies.
func encodeWrite(o *ops, s *openState, off uint64, data []byte, stable uint32) (at int) {
	o.putfh(s.fh)
	o.op(proto.OpWrite)
	s.sid.Encode(&o.e)
	o.e.U64(off)
	o.e.U32(stable)
	at = o.e.Len() + 4
	o.e.Opaque(data)
	return at
}

func parseWrite(r *results, verf *[8]byte) (n int, err error) {
	if err := r.putfh(); err != nil {
		return 0, err
	}
	if err := r.next(proto.OpWrite); err != nil {
		return 0, err
	}
	n = int(r.d.U32())
	r.d.U32()
	copy(verf[:], r.d.Fixed(8))
	return n, r.d.Err()
}

// Write stores data at off without waiting for the disk; see Commit. The client keeps a copy until
// the server has it durably.
func (f *File) Write(i Interrupt, off uint64, data []byte) error {
	for len(data) > 0 {
		n := min(len(data), proto.MaxIO)
		if err := f.writeOnce(i, off, data[:n]); err != nil {
			return err
		}
		off, data = off+uint64(n), data[n:]
	}
	return nil
}

func (f *File) writeOnce(i Interrupt, off uint64, data []byte) error {
	s, err := f.state()
	if err != nil {
		return err
	}
	var kept []byte
	n := len(data)
	err = f.c.doOpen(i, s, request{func(o *ops) {
		at := encodeWrite(o, s, off, data, proto.Unstable)
		kept = o.e.B[at : at+n]
	}, func(r *results) error {
		w := pendingWrite{off: off, data: kept}
		if _, err := parseWrite(r, &w.verf); err != nil {
			return err
		}
		f.mu.Lock()
		f.pending = append(f.pending, w)
		f.mu.Unlock()
		f.c.pending.Add(int64(n))
		return nil
	}})
	if err == nil && f.c.pending.Load() > maxPending {
		err = f.c.commitAll(i)
	}
	return err
}

// commitAll frees the memory that uncommitted data takes.
func (c *Client) commitAll(i Interrupt) error {
	c.smu.Lock()
	var fs []*File
	for _, f := range c.files {
		f.users++
		fs = append(fs, f)
	}
	c.smu.Unlock()
	var first error
	for _, f := range fs {
		if err := f.Commit(i); err != nil && first == nil {
			first = err
		}
		c.drop(f)
	}
	return first
}

// Append stores data at the end of the file, atomically among all hosts, and durably.
func (f *File) Append(i Interrupt, data []byte) error {
	s, err := f.state()
	if err != nil {
		return err
	}
	if err := f.Commit(i); err != nil {
		return err
	}
	for len(data) > 0 {
		n := min(len(data), proto.MaxIO)
		var verf [8]byte
		err := f.c.doOpen(i, s, request{func(o *ops) { encodeWrite(o, s, proto.AppendOffset, data[:n], proto.FileSync) }, func(r *results) error {
			_, err := parseWrite(r, &verf)
			return err
		}})
		if err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// Commit returns when everything written before is durable.
func (f *File) Commit(i Interrupt) error {
	f.commit.Lock()
	defer f.commit.Unlock()
	for {
		f.mu.Lock()
		n, s := len(f.pending), f.open
		f.mu.Unlock()
		if n == 0 || s == nil {
			return nil
		}
		if s.lost.Load() {
			return syscall.EIO
		}
		all, err := f.commitOnce(i, s, n)
		if err != nil || all {
			return err
		}
		// The server restarted without our noticing it: send again what it forgot.
		if err := f.resend(i, s, n); err != nil {
			return err
		}
	}
}

// commitOnce commits the first n pending writes; all is false when the server has lost some.
func (f *File) commitOnce(i Interrupt, s *openState, n int) (all bool, err error) {
	err = f.c.doOpen(i, s, request{func(o *ops) {
		o.putfh(s.fh)
		o.op(proto.OpCommit)
		o.e.U64(0)
		o.e.U32(0)
	}, func(r *results) error {
		if err := r.putfh(); err != nil {
			return err
		}
		if err := r.next(proto.OpCommit); err != nil {
			return err
		}
		var verf [8]byte
		copy(verf[:], r.d.Fixed(8))
		if r.d.Err() != nil {
			return r.d.Err()
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, w := range f.pending[:n] {
			if w.verf != verf {
				return nil
			}
		}
		for _, w := range f.pending[:n] {
			f.c.pending.Add(-int64(len(w.data)))
		}
		f.pending = append([]pendingWrite(nil), f.pending[n:]...)
		all = true
		return nil
	}})
	return all, err
}

func (f *File) resend(i Interrupt, s *openState, n int) error {
	for k := range n {
		f.mu.Lock()
		w := f.pending[k]
		f.mu.Unlock()
		err := f.c.doOpen(i, s, request{func(o *ops) { encodeWrite(o, s, w.off, w.data, proto.Unstable) }, f.noteResent(k)})
		if err != nil {
			return err
		}
	}
	return nil
}

// noteResent records the new verifier of the k-th pending write.
func (f *File) noteResent(k int) func(*results) error {
	return func(r *results) error {
		var verf [8]byte
		_, err := parseWrite(r, &verf)
		if err == nil {
			f.mu.Lock()
			f.pending[k].verf = verf
			f.mu.Unlock()
		}
		return err
	}
}
