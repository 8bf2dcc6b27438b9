package server

import (
	"appliance/nfs/proto"
)

// ioState checks a stateid for READ, WRITE or a change of size of the current file.
func (c *compound) ioState(s proto.Stateid, access uint32) proto.Status {
	x := c.x
	x.mu.Lock()
	defer x.mu.Unlock()
	if s == proto.Current {
		s = c.sid
	}
	if s == proto.Anonymous || s == proto.Bypass {
		if x.grace() {
			return proto.ErrGrace
		}
		for _, o := range x.files[c.cur].openList() {
			if o.deny&access != 0 && !x.lapsed(o.c) {
				return proto.ErrLocked
			}
		}
		return proto.OK
	}
	if c.client == nil {
		return proto.ErrBadStateid
	}
	o, _, st := x.find(c.client, s)
	switch {
	case st != proto.OK:
		return st
	case o.ino != c.cur:
		return proto.ErrBadStateid
	case o.access&access == 0:
		return proto.ErrOpenMode
	}
	return proto.OK
}

func (f *fileState) openList() []*openState {
	if f == nil {
		return nil
	}
	return f.opens
}

func opRead(c *compound) proto.Status {
	sid := proto.DecodeStateid(c.d)
	off, count := c.d.U64(), c.d.U32()
	a, st := c.attr()
	if st != proto.OK {
		return st
	}
	if st := c.ioState(sid, proto.AccessRead); st != proto.OK && st != proto.ErrOpenMode {
		return st // a write-only open may read: page caches do (RFC 8881 section 18.22.3)
	}
	if (sid == proto.Anonymous || sid == proto.Bypass) && !c.may(a, 4) && !c.may(a, 1) {
		return proto.ErrAccess
	}
	n := int(min(count, proto.MaxIO))
	n = max(0, min(n, proto.MaxIO+8<<10-(c.e.Len()-c.base)))
	at := c.e.Len()
	c.e.U32(0)
	c.e.U32(0)
	data := c.e.Len()
	for cap(c.e.B) < data+n+4 {
		c.e.B = append(c.e.B[:cap(c.e.B)], make([]byte, data+n+4-cap(c.e.B))...)
	}
	c.e.B = c.e.B[:data+n]
	got, eof, settled, err := c.x.vol.Read(c.cur, off, c.e.B[data:])
	c.e.B = c.e.B[:data+got]
	c.after(settled)
	if err != nil {
		return c.fail(err)
	}
	for c.e.Len()%4 != data%4 {
		c.e.B = append(c.e.B, 0)
	}
	if eof {
		c.e.PutU32(at, 1)
	}
	c.e.PutU32(at+4, uint32(got))
	return proto.OK
}

func opWrite(c *compound) proto.Status {
	sid := proto.DecodeStateid(c.d)
	off, stable := c.d.U64(), c.d.U32()
	data := c.d.Opaque(proto.MaxIO)
	if c.d.Err() != nil {
		return proto.ErrBadXDR
	}
	if stable > proto.FileSync {
		return proto.ErrInval
	}
	a, st := c.attr()
	if st != proto.OK {
		return st
	}
	o := c.mark()
	_, done := c.x.vol.Done(o)
	if !done {
		if c.dead {
			return proto.ErrDelay
		}
		if st := c.ioState(sid, proto.AccessWrite); st != proto.OK {
			return st
		}
		if (sid == proto.Anonymous || sid == proto.Bypass) && !c.may(a, 2) {
			return proto.ErrAccess
		}
		if off != proto.AppendOffset {
			o.Session = proto.SessionID{}
			o.Slot, o.Seq, o.Index = 0, 0, 0 // only an append is harmed by a repetition
		} else {
			stable = proto.FileSync
		}
		lsn, err := c.x.vol.Write(c.cur, off, data, stable != proto.Unstable, o)
		if err != nil {
			return c.fail(err)
		}
		if stable != proto.Unstable {
			c.after(lsn)
			stable = proto.FileSync
		}
	}
	c.e.U32(uint32(len(data)))
	c.e.U32(stable)
	c.e.Fixed(c.x.verf[:])
	return proto.OK
}

func opCommit(c *compound) proto.Status {
	c.d.U64()
	c.d.U32()
	if _, st := c.attr(); st != proto.OK {
		return st
	}
	lsn, err := c.x.vol.Commit(c.cur)
	if err != nil {
		return c.fail(err)
	}
	c.after(lsn)
	c.e.Fixed(c.x.verf[:])
	return proto.OK
}
