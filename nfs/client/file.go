package client

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"

	"appliance/nfs/lockrange"
	"appliance/nfs/proto"
)

// openState is one open on the server. Each has an owner of its own, so that a late CLOSE never
// hits a newer open of the same file.
type openState struct {
	owner string
	fh    []byte
	sid   proto.Stateid // written with the gate held
	late  bool          // opened again after grace: locks cannot be had back
	lost  atomic.Bool   // the server gave the file's locks away
}

// File is an open file: all openers on this host share it. Safe for concurrent use.
type File struct {
	c      *Client
	fileid uint64
	fh     []byte

	life  sync.Mutex // held over OPEN and CLOSE
	users int        // references to the struct; guarded by Client.smu
	refs  int        // openers; guarded by life

	mu      sync.Mutex // guards the rest, and is never held over a request
	open    *openState
	locks   map[string]*heldLocks
	pending []pendingWrite
	commit  sync.Mutex // one COMMIT at a time
}

type heldLocks struct {
	sid proto.Stateid
	set lockrange.Set
}

// pendingWrite is data that a restart of the server may lose.
type pendingWrite struct {
	off  uint64
	data []byte
	verf [8]byte
}

func (c *Client) newOwner() string {
	c.smu.Lock()
	defer c.smu.Unlock()
	c.nextOwn++
	return fmt.Sprintf("open-%d", c.nextOwn)
}

func (c *Client) file(fileid uint64, fh []byte) *File {
	c.smu.Lock()
	defer c.smu.Unlock()
	f := c.files[fileid]
	if f == nil {
		f = &File{c: c, fileid: fileid, fh: fh, locks: map[string]*heldLocks{}}
		c.files[fileid] = f
	}
	f.users++
	return f
}

func (c *Client) drop(f *File) {
	c.smu.Lock()
	defer c.smu.Unlock()
	if f.users--; f.users == 0 {
		delete(c.files, f.fileid)
	}
}

// encode appends an OPEN of the file by handle, for reading and writing.
func (s *openState) encode(o *ops, clientID uint64, claim uint32) {
	o.putfh(s.fh)
	o.op(proto.OpOpen)
	s.encodeHead(o, clientID)
	o.e.U32(0)
	o.e.U32(claim)
	if claim == proto.ClaimPrevious {
		o.e.U32(0)
	}
}

func (s *openState) encodeHead(o *ops, clientID uint64) {
	o.e.U32(0)
	o.e.U32(proto.AccessBoth)
	o.e.U32(0)
	o.e.U64(clientID)
	o.e.String(s.owner)
}

// note reads PUTFH and OPEN.
func (s *openState) note(r *results) error {
	if err := r.putfh(); err != nil {
		return err
	}
	if err := r.next(proto.OpOpen); err != nil {
		return err
	}
	sid := proto.DecodeStateid(r.d)
	r.changeInfo()
	r.d.U32()
	proto.DecodeBitmap(r.d)
	if d := r.d.U32(); d != 0 {
		return proto.ErrServerFault
	}
	if r.d.Err() == nil {
		sid.Seq = 0 // "the newest": requests of several openers may overtake each other
		s.sid = sid
	}
	return r.d.Err()
}

func (c *Client) remember(s *openState) {
	c.smu.Lock()
	c.opens[s] = true
	c.smu.Unlock()
}

func (c *Client) forget(s *openState) {
	c.smu.Lock()
	delete(c.opens, s)
	c.smu.Unlock()
}

// Open opens a file by handle. Close it once for every Open.
func (c *Client) Open(i Interrupt, fh []byte, fileid uint64) (*File, error) {
	f := c.file(fileid, fh)
	f.life.Lock()
	defer f.life.Unlock()
	if f.refs == 0 {
		s := &openState{owner: c.newOwner(), fh: fh}
		err := c.do(i, request{func(o *ops) { s.encode(o, c.clientID, proto.ClaimFH) }, func(r *results) error {
			err := s.note(r)
			if err == nil {
				c.remember(s)
			}
			return err
		}})
		if err != nil {
			c.drop(f)
			return nil, err
		}
		f.setOpen(s)
	}
	f.refs++
	return f, nil
}

func (f *File) setOpen(s *openState) {
	f.mu.Lock()
	f.open = s
	f.mu.Unlock()
}

// Create opens dir/name, making it when it is not there. With excl it must not be there; verf, new
// for every call, makes that exact over retries. A size of zero in set truncates an existing file.
func (c *Client) Create(i Interrupt, dir []byte, name string, set proto.SetAttr, excl bool, verf [8]byte) (*File, proto.Attr, error) {
	s := &openState{owner: c.newOwner()}
	var a proto.Attr
	err := c.do(i, request{func(o *ops) {
		o.putfh(dir)
		o.op(proto.OpOpen)
		s.encodeHead(o, c.clientID)
		o.e.U32(1)
		if excl {
			o.e.U32(proto.Exclusive1)
			o.e.Fixed(verf[:])
		} else {
			o.e.U32(proto.Unchecked)
		}
		set.Encode(&o.e)
		o.e.U32(proto.ClaimNull)
		o.e.String(name)
		o.getattr(proto.FileAttrs)
	}, func(r *results) (err error) {
		if err = s.note(r); err != nil {
			return err
		}
		if a, err = r.attr(); err == nil {
			s.fh = a.FH
			c.remember(s)
		}
		return err
	}})
	if err != nil {
		return nil, a, err
	}
	f := c.file(a.Fileid, a.FH)
	f.life.Lock()
	defer f.life.Unlock()
	if f.refs == 0 {
		f.setOpen(s)
	} else {
		c.closeState(i, s)
	}
	f.refs++
	return f, a, nil
}

// closeState sends CLOSE. The state is forgotten whatever the answer is.
func (c *Client) closeState(i Interrupt, s *openState) error {
	err := c.do(i, request{func(o *ops) {
		o.putfh(s.fh)
		o.op(proto.OpClose)
		o.e.U32(0)
		s.sid.Encode(&o.e)
	}, func(r *results) error {
		if err := r.putfh(); err != nil {
			return err
		}
		err := r.next(proto.OpClose)
		if err == nil {
			c.forget(s)
		}
		return err
	}})
	c.forget(s)
	return err
}

// Close undoes one Open or Create; the last one commits and closes.
func (f *File) Close(i Interrupt) error {
	f.life.Lock()
	defer f.life.Unlock()
	defer f.c.drop(f)
	if f.refs--; f.refs > 0 {
		return nil
	}
	err := f.Commit(i)
	cerr := f.c.closeState(i, f.open)
	f.mu.Lock()
	f.open, f.locks = nil, map[string]*heldLocks{}
	for _, p := range f.pending {
		f.c.pending.Add(-int64(len(p.data)))
	}
	f.pending = nil
	f.mu.Unlock()
	if err == nil {
		err = cerr
	}
	return err
}

// state returns the open to use, or EIO when the server gave the file's locks away.
func (f *File) state() (*openState, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open == nil {
		return nil, syscall.EBADF
	}
	if f.open.lost.Load() {
		return nil, syscall.EIO
	}
	return f.open, nil
}
