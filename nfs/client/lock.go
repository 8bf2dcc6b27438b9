package client

import (
	"errors"
	"syscall"
	"time"

	"appliance/nfs/lockrange"
	"appliance/nfs/proto"
)

const (
	lockPollMin = 2 * time.Millisecond
	lockPollMax = 100 * time.Millisecond
)

func lockKind(r lockrange.Range) uint32 {
	if r.Write {
		return proto.WriteLock
	}
	return proto.ReadLock
}

// encodeLock always names the owner: the server knows whether it has a lock state already.
func (s *openState) encodeLock(o *ops, clientID uint64, owner string, r lockrange.Range, reclaim bool) {
	o.putfh(s.fh)
	o.op(proto.OpLock)
	o.e.U32(lockKind(r))
	o.e.Bool(reclaim)
	o.e.U64(r.Start)
	o.e.U64(r.Length())
	o.e.Bool(true)
	o.e.U32(0)
	s.sid.Encode(&o.e)
	o.e.U32(0)
	o.e.U64(clientID)
	o.e.String(owner)
}

// noteLock records a granted lock while the gate is held, so that recovery never misses it.
func (f *File) noteLock(owner string, rng lockrange.Range) func(*results) error {
	return func(r *results) error {
		if err := r.putfh(); err != nil {
			return err
		}
		if err := r.next(proto.OpLock); err != nil {
			return err
		}
		sid := proto.DecodeStateid(r.d)
		sid.Seq = 0
		if r.d.Err() != nil {
			return r.d.Err()
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		l := f.locks[owner]
		if l == nil {
			l = &heldLocks{}
			f.locks[owner] = l
		}
		l.sid = sid
		l.set.Lock(rng)
		return nil
	}
}

// Lock takes a byte-range lock, or returns EAGAIN when somebody else holds it.
func (f *File) Lock(i Interrupt, owner string, r lockrange.Range) error {
	s, err := f.state()
	if err != nil {
		return err
	}
	err = f.c.doOpen(i, s, request{func(o *ops) { s.encodeLock(o, f.c.clientID, owner, r, false) }, f.noteLock(owner, r)})
	if errors.Is(err, proto.ErrDenied) {
		return syscall.EAGAIN
	}
	return err
}

// LockWait takes a lock, waiting until it is free. Any signal interrupts the wait.
func (f *File) LockWait(i Interrupt, owner string, r lockrange.Range) error {
	for wait := lockPollMin; ; wait = min(2*wait, lockPollMax) {
		err := f.Lock(i, owner, r)
		if err != syscall.EAGAIN {
			return err
		}
		if err := f.c.sleep(Interrupt{C: i.C}, wait); err != nil {
			return err
		}
	}
}

// Unlock gives a range back. Data is committed first: the next holder must find it even if the
// server restarts in between.
func (f *File) Unlock(i Interrupt, owner string, rng lockrange.Range) error {
	f.mu.Lock()
	l, s := f.locks[owner], f.open
	held := l != nil && !l.set.Empty()
	f.mu.Unlock()
	if !held || s == nil {
		return nil
	}
	if s.lost.Load() {
		f.mu.Lock()
		l.set.Unlock(rng)
		f.mu.Unlock()
		return nil
	}
	if err := f.Commit(i); err != nil {
		return err
	}
	err := f.c.doOpen(i, s, request{func(o *ops) {
		o.putfh(s.fh)
		o.op(proto.OpLocku)
		o.e.U32(proto.WriteLock)
		o.e.U32(0)
		f.mu.Lock()
		sid := l.sid
		f.mu.Unlock()
		sid.Encode(&o.e)
		o.e.U64(rng.Start)
		o.e.U64(rng.Length())
	}, func(r *results) error {
		if err := r.putfh(); err != nil {
			return err
		}
		if err := r.next(proto.OpLocku); err != nil {
			return err
		}
		f.mu.Lock()
		l.set.Unlock(rng)
		f.mu.Unlock()
		return nil
	}})
	return err
}

// Release gives back all that an owner holds and lets the server forget the owner.
func (f *File) Release(i Interrupt, owner string) error {
	f.mu.Lock()
	l := f.locks[owner]
	f.mu.Unlock()
	if l == nil {
		return nil
	}
	err := f.Unlock(i, owner, lockrange.Range{End: ^uint64(0)})
	f.c.do(i, request{func(o *ops) {
		o.op(proto.OpFreeStateid)
		f.mu.Lock()
		sid := l.sid
		f.mu.Unlock()
		sid.Encode(&o.e)
	}, nil})
	f.mu.Lock()
	if f.locks[owner] == l && l.set.Empty() {
		delete(f.locks, owner)
	}
	f.mu.Unlock()
	return err
}

// TestLock returns a lock of somebody else that r would conflict with.
func (f *File) TestLock(i Interrupt, owner string, rng lockrange.Range) (held lockrange.Range, conflict bool, err error) {
	s, err := f.state()
	if err != nil {
		return held, false, err
	}
	err = f.c.doOpen(i, s, request{func(o *ops) {
		o.putfh(s.fh)
		o.op(proto.OpLockt)
		o.e.U32(lockKind(rng))
		o.e.U64(rng.Start)
		o.e.U64(rng.Length())
		o.e.U64(f.c.clientID)
		o.e.String(owner)
	}, func(r *results) error {
		if err := r.putfh(); err != nil {
			return err
		}
		err := r.next(proto.OpLockt)
		if err == proto.ErrDenied {
			off, length, kind := r.d.U64(), r.d.U64(), r.d.U32()
			held, _ = lockrange.Of(off, length, kind == proto.WriteLock)
			conflict = true
			return r.d.Err()
		}
		return err
	}})
	return held, conflict, err
}
