package server

import (
	"appliance/nfs/proto"
	"appliance/nfs/store"
)

func opCreate(c *compound) proto.Status {
	r := store.Record{Kind: c.d.U32()}
	switch r.Kind {
	case proto.Lnk:
		r.Target = c.d.String(proto.MaxTarget)
	case proto.Blk, proto.Chr:
		r.Major, r.Minor = c.d.U32(), c.d.U32()
	case proto.Dir, proto.Sock, proto.Fifo:
	default:
		return proto.ErrBadType
	}
	name, st := c.name()
	if st != proto.OK {
		return st
	}
	set, st := proto.DecodeSetAttr(c.d)
	switch {
	case st != proto.OK:
		return st
	case r.Kind == proto.Lnk && r.Target == "" || set.Mask.Has(proto.AttrSize):
		return proto.ErrInval
	}
	d, st := c.dirAttr()
	if st != proto.OK {
		return st
	}
	var ino store.Ino
	var done bool
	if ino, done = c.x.vol.Done(c.mark()); !done {
		if c.x.inGrace() {
			return proto.ErrGrace
		}
		if !c.may(d, 3) {
			return proto.ErrAccess
		}
		r.Set, r.Origin = c.ownerOf(set), c.mark()
		if r.Kind == proto.Lnk {
			r.Set.Mode = 0o777
		}
		a, lsn, err := c.x.vol.Create(c.cur, name, r)
		c.after(lsn)
		if err != nil {
			return c.fail(err)
		}
		ino = a.Ino
	}
	c.changeInfo(d.Change, c.wait)
	set.Mask.Encode(c.e)
	c.cur, c.sid = ino, proto.Anonymous
	return proto.OK
}

// ownerOf fills in who owns a new inode: the caller, unless it is root and says otherwise.
func (c *compound) ownerOf(s proto.SetAttr) proto.SetAttr {
	if !s.Mask.Has(proto.AttrOwner) || c.cred.UID != 0 {
		s.UID = c.cred.UID
	}
	if !s.Mask.Has(proto.AttrGroup) || c.cred.UID != 0 && !c.inGroup(s.GID) {
		s.GID = c.cred.GID
	}
	return s
}

func opRemove(c *compound) proto.Status {
	name, st := c.name()
	if st != proto.OK {
		return st
	}
	d, st := c.dirAttr()
	if st != proto.OK {
		return st
	}
	if _, done := c.x.vol.Done(c.mark()); !done {
		a, settled, err := c.x.vol.Lookup(c.cur, name)
		c.after(settled)
		switch {
		case err != nil:
			return c.fail(err)
		case !c.mayDelete(d, a):
			return proto.ErrAccess
		case c.x.inGrace():
			return proto.ErrGrace
		}
		lsn, err := c.x.vol.Remove(c.cur, name, c.mark())
		c.after(lsn)
		if err != nil {
			return c.fail(err)
		}
	}
	c.changeInfo(d.Change, c.wait)
	return proto.OK
}

func opRename(c *compound) proto.Status {
	from, st := c.name()
	to, st2 := c.name()
	if st = max(st, st2); st != proto.OK {
		return st
	}
	if c.saved == 0 {
		return proto.ErrNoFileHandle
	}
	dd, st := c.dirAttr()
	if st != proto.OK {
		return st
	}
	sd, err := c.x.vol.Attr(c.saved)
	switch {
	case err != nil:
		return c.fail(err)
	case sd.Kind != proto.Dir:
		return proto.ErrNotDir
	}
	if _, done := c.x.vol.Done(c.mark()); !done {
		if st := c.rename(sd, dd, from, to); st != proto.OK {
			return st
		}
	}
	c.changeInfo(sd.Change, c.wait)
	c.changeInfo(dd.Change, c.wait)
	return proto.OK
}

func (c *compound) rename(sd, dd store.Attr, from, to string) proto.Status {
	a, settled, err := c.x.vol.Lookup(sd.Ino, from)
	c.after(settled)
	if err != nil {
		return c.fail(err)
	}
	old, _, err := c.x.vol.Lookup(dd.Ino, to)
	switch {
	case !c.mayDelete(sd, a), !c.may(dd, 3), err == nil && !c.mayDelete(dd, old):
		return proto.ErrAccess
	case c.x.inGrace():
		return proto.ErrGrace
	}
	lsn, err := c.x.vol.Rename(sd.Ino, from, dd.Ino, to, c.mark())
	c.after(lsn)
	return c.fail(err)
}

func opLink(c *compound) proto.Status {
	name, st := c.name()
	if st != proto.OK {
		return st
	}
	if c.saved == 0 {
		return proto.ErrNoFileHandle
	}
	d, st := c.dirAttr()
	if st != proto.OK {
		return st
	}
	if _, done := c.x.vol.Done(c.mark()); !done {
		switch {
		case !c.may(d, 3):
			return proto.ErrAccess
		case c.x.inGrace():
			return proto.ErrGrace
		}
		lsn, err := c.x.vol.Link(c.saved, c.cur, name, c.mark())
		c.after(lsn)
		if err != nil {
			return c.fail(err)
		}
	}
	c.changeInfo(d.Change, c.wait)
	return proto.OK
}

// readdirBatch is how many entries are taken from the directory at a time.
const readdirBatch = 256

func opReaddir(c *compound) proto.Status {
	cookie := c.d.U64()
	c.d.Fixed(8) // cookie verifier: cookies never go stale
	c.d.U32()
	maxcount := int(c.d.U32())
	want, _ := proto.DecodeBitmap(c.d)
	if c.d.Err() != nil {
		return proto.ErrBadXDR
	}
	d, st := c.dirAttr()
	switch {
	case st != proto.OK:
		return st
	case !c.may(d, 4):
		return proto.ErrAccess
	case cookie == 1 || cookie == 2:
		return proto.ErrBadCookie
	}
	room := min(maxcount, proto.MaxIO) - 24 // verifier, two booleans and slack
	c.e.U64(1)
	n, eof, st := c.listDir(d, cookie, room, want)
	switch {
	case st != proto.OK:
		return st
	case n == 0 && !eof:
		return proto.ErrTooSmall
	}
	c.e.Bool(false)
	c.e.Bool(eof)
	return proto.OK
}

func (c *compound) listDir(d store.Attr, cookie uint64, room int, want proto.Bitmap) (n int, eof bool, st proto.Status) {
	start := c.e.Len()
	for {
		entries, _, err := c.x.vol.Readdir(d.Ino, cookie, readdirBatch)
		if err != nil {
			return n, false, c.fail(err)
		}
		for _, e := range entries {
			a, err := c.x.vol.Attr(e.Ino)
			if err != nil {
				continue // removed since
			}
			c.after(a.Settled)
			at := c.e.Len()
			c.e.Bool(true)
			c.e.U64(e.Cookie)
			c.e.String(e.Name)
			c.encodeAttr(a, want)
			if c.e.Len()-start > room {
				c.e.B = c.e.B[:at]
				return n, false, proto.OK
			}
			n++
			cookie = e.Cookie
		}
		if len(entries) < readdirBatch {
			return n, true, proto.OK
		}
	}
}
