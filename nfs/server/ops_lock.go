package server

import (
	"appliance/nfs/lockrange"
	"appliance/nfs/proto"
	"appliance/nfs/store"
)

// denied encodes who holds the conflicting lock.
func (c *compound) denied(l *lockState, r lockrange.Range) proto.Status {
	c.e.U64(r.Start)
	c.e.U64(r.Length())
	if r.Write {
		c.e.U32(proto.WriteLock)
	} else {
		c.e.U32(proto.ReadLock)
	}
	c.e.U64(l.c.id)
	c.e.String(l.owner)
	return proto.ErrDenied
}

// conflict finds a lock of somebody else that r cannot be held together with. Clients whose lease
// is over lose theirs. Called with mu held.
func (x *export) conflict(cl *client, owner string, ino store.Ino, r lockrange.Range) (*lockState, lockrange.Range) {
	f := x.files[ino]
	if f == nil {
		return nil, r
	}
	for _, l := range append([]*lockState(nil), f.locks...) {
		if l.c == cl && l.owner == owner {
			continue
		}
		if h, ok := l.set.Conflict(r); ok {
			if x.lapsed(l.c) && l.c != cl {
				x.expire(l.c)
				if x.clients[l.c.id] == nil {
					continue
				}
			}
			return l, h
		}
	}
	return nil, r
}

func lockType(t uint32) (write, ok bool) {
	return t == proto.WriteLock || t == proto.WriteLockW, t >= proto.ReadLock && t <= proto.WriteLockW
}

func opLock(c *compound) proto.Status {
	kind, reclaim := c.d.U32(), c.d.Bool()
	off, length := c.d.U64(), c.d.U64()
	isNew := c.d.Bool()
	var owner string
	var sid proto.Stateid
	if isNew {
		c.d.U32()
		sid = proto.DecodeStateid(c.d)
		c.d.U32()
		c.d.U64()
		owner = c.d.String(proto.MaxOwner)
	} else {
		sid = proto.DecodeStateid(c.d)
		c.d.U32()
	}
	write, ok := lockType(kind)
	r, okRange := lockrange.Of(off, length, write)
	switch {
	case c.d.Err() != nil:
		return proto.ErrBadXDR
	case !ok || !okRange:
		return proto.ErrInval
	}
	if a, st := c.attr(); st != proto.OK {
		return st
	} else if a.Kind == proto.Dir {
		return proto.ErrIsDir
	}
	c.x.mu.Lock()
	defer c.x.mu.Unlock()
	return c.lock(sid, isNew, owner, r, reclaim)
}

// lock grants or denies. Called with export.mu held.
func (c *compound) lock(sid proto.Stateid, isNew bool, owner string, r lockrange.Range, reclaim bool) proto.Status {
	x := c.x
	if sid == proto.Current {
		sid = c.sid
	}
	o, l, st := x.find(c.client, sid)
	switch {
	case st != proto.OK:
		return st
	case o.ino != c.cur || isNew != (l == nil):
		return proto.ErrBadStateid
	case r.Write && o.access&proto.AccessWrite == 0, !r.Write && o.access&proto.AccessRead == 0:
		return proto.ErrOpenMode
	case reclaim && (!x.grace() || c.client.reclaimed || !x.reclaim[c.client.owner]):
		return proto.ErrNoGrace
	case !reclaim && x.grace():
		return proto.ErrGrace
	}
	if l != nil {
		owner = l.owner
	}
	if h, hr := x.conflict(c.client, owner, c.cur, r); h != nil {
		if reclaim {
			return proto.ErrReclaimBad
		}
		return c.denied(h, hr)
	}
	if l == nil {
		l = x.lockOf(c.client, owner, o)
	}
	if l == nil || l.set.Len() >= maxRanges {
		return proto.ErrDelay
	}
	l.set.Lock(r)
	l.seq++
	c.sid = x.stateid(l.id, l.seq)
	c.sid.Encode(c.e)
	return proto.OK
}

// lockOf finds or makes the lock state of an owner on the open's file; nil when there are too many.
func (x *export) lockOf(cl *client, owner string, o *openState) *lockState {
	f := x.file(o.ino)
	for _, l := range f.locks {
		if l.c == cl && l.owner == owner && l.open == o {
			return l
		}
	}
	if len(cl.locks) >= maxLockOwners {
		return nil
	}
	x.nextID++
	l := &lockState{id: x.nextID, c: cl, owner: owner, ino: o.ino, open: o}
	cl.locks[l.id] = l
	f.locks = append(f.locks, l)
	return l
}

func opLockt(c *compound) proto.Status {
	kind := c.d.U32()
	off, length := c.d.U64(), c.d.U64()
	c.d.U64()
	owner := c.d.String(proto.MaxOwner)
	write, ok := lockType(kind)
	r, okRange := lockrange.Of(off, length, write)
	switch {
	case c.d.Err() != nil:
		return proto.ErrBadXDR
	case !ok || !okRange:
		return proto.ErrInval
	}
	if a, st := c.attr(); st != proto.OK {
		return st
	} else if a.Kind == proto.Dir {
		return proto.ErrIsDir
	}
	c.x.mu.Lock()
	defer c.x.mu.Unlock()
	if c.x.grace() {
		return proto.ErrGrace
	}
	if h, hr := c.x.conflict(c.client, owner, c.cur, r); h != nil {
		return c.denied(h, hr)
	}
	return proto.OK
}

func opLocku(c *compound) proto.Status {
	c.d.U32()
	c.d.U32()
	sid := proto.DecodeStateid(c.d)
	off, length := c.d.U64(), c.d.U64()
	r, okRange := lockrange.Of(off, length, true)
	switch {
	case c.d.Err() != nil:
		return proto.ErrBadXDR
	case !okRange:
		return proto.ErrInval
	case c.cur == 0:
		return proto.ErrNoFileHandle
	}
	c.x.mu.Lock()
	defer c.x.mu.Unlock()
	if sid == proto.Current {
		sid = c.sid
	}
	_, l, st := c.x.find(c.client, sid)
	switch {
	case st != proto.OK:
		return st
	case l == nil || l.ino != c.cur:
		return proto.ErrBadStateid
	}
	l.set.Unlock(r)
	l.seq++
	c.sid = c.x.stateid(l.id, l.seq)
	c.sid.Encode(c.e)
	return proto.OK
}

func opFreeStateid(c *compound) proto.Status {
	sid := proto.DecodeStateid(c.d)
	c.x.mu.Lock()
	defer c.x.mu.Unlock()
	_, l, st := c.x.find(c.client, sid)
	switch {
	case st != proto.OK:
		return st
	case l == nil || !l.set.Empty():
		return proto.ErrLocksHeld
	}
	c.x.dropLock(l)
	return proto.OK
}

func opTestStateid(c *compound) proto.Status {
	n := c.d.Count(1024, 16)
	var sids []proto.Stateid
	for i := 0; i < n; i++ {
		sids = append(sids, proto.DecodeStateid(c.d))
	}
	if c.d.Err() != nil {
		return proto.ErrBadXDR
	}
	c.x.mu.Lock()
	defer c.x.mu.Unlock()
	c.e.U32(uint32(n))
	for _, s := range sids {
		_, _, st := c.x.find(c.client, s)
		c.e.U32(uint32(st))
	}
	return proto.OK
}
