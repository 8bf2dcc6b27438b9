package server

import (
	"errors"
	"syscall"

	"appliance/nfs/proto"
	"appliance/nfs/store"
)

// openArgs are the arguments of OPEN (RFC 8881 section 18.16).
type openArgs struct {
	access, deny uint32
	owner        string
	create       bool
	how          uint32
	verf         [8]byte
	set          proto.SetAttr
	claim        uint32
	name         string
}

func (c *compound) decodeOpen() (a openArgs, st proto.Status) {
	d := c.d
	d.U32()
	a.access, a.deny = d.U32()&proto.AccessMask, d.U32()
	d.U64()
	a.owner = d.String(proto.MaxOwner)
	switch d.U32() {
	case 0:
	case 1:
		a.create = true
		a.how = d.U32()
		if a.how == proto.Exclusive || a.how == proto.Exclusive1 {
			copy(a.verf[:], d.Fixed(8))
		}
		if a.how != proto.Exclusive {
			a.set, st = proto.DecodeSetAttr(d)
		}
	default:
		d.Fail(proto.ErrBadXDR)
	}
	a.claim = d.U32()
	switch a.claim {
	case proto.ClaimNull:
		var st2 proto.Status
		a.name, st2 = c.name()
		st = max(st, st2)
	case proto.ClaimPrevious:
		d.U32()
	case proto.ClaimFH:
	default:
		return a, proto.ErrNotSupp // delegations are never given
	}
	switch {
	case d.Err() != nil:
		return a, proto.ErrBadXDR
	case a.access == 0 || a.deny > 3 || a.how > proto.Exclusive1:
		return a, proto.ErrInval
	}
	return a, st
}

func opOpen(c *compound) proto.Status {
	a, st := c.decodeOpen()
	if st != proto.OK {
		return st
	}
	if st := c.mayClaim(a); st != proto.OK {
		return st
	}
	before := uint64(0)
	file, created := store.Attr{}, false
	if a.claim == proto.ClaimNull {
		d, st := c.dirAttr()
		if st != proto.OK {
			return st
		}
		before = d.Change
		if file, created, st = c.openName(d, a); st != proto.OK {
			return st
		}
	} else if file, st = c.attr(); st != proto.OK {
		return st
	}
	switch {
	case file.Kind == proto.Dir:
		return proto.ErrIsDir
	case file.Kind == proto.Lnk:
		return proto.ErrSymlink
	case file.Kind != proto.Reg:
		return proto.ErrWrongType
	}
	if !created && a.claim != proto.ClaimPrevious && !c.mayOpen(file, a.access) {
		return proto.ErrAccess
	}
	sid, st := c.x.open(c.client, file.Ino, a)
	if st != proto.OK {
		return st
	}
	if st := c.truncateOnOpen(file, a, created); st != proto.OK {
		return st
	}
	sid.Encode(c.e)
	c.changeInfo(before, max(before, c.wait))
	c.e.U32(proto.ResultLocktypePosix | proto.ResultPreserveUnlink)
	a.set.Mask.Encode(c.e)
	c.e.U32(0) // no delegation
	c.cur, c.sid = file.Ino, sid
	return proto.OK
}

// mayClaim checks grace: reclaims only in it, everything else only after it.
func (c *compound) mayClaim(a openArgs) proto.Status {
	c.x.mu.Lock()
	defer c.x.mu.Unlock()
	if a.claim == proto.ClaimPrevious {
		if !c.x.grace() || c.client.reclaimed || !c.x.reclaim[c.client.owner] {
			return proto.ErrNoGrace
		}
		return proto.OK
	}
	if c.x.grace() {
		return proto.ErrGrace
	}
	return proto.OK
}

func (c *compound) mayOpen(f store.Attr, access uint32) bool {
	var want uint32
	if access&proto.AccessWrite != 0 {
		want |= 2
	}
	if access&proto.AccessRead != 0 {
		want |= 4
	}
	if c.may(f, want) || c.cred.UID == f.UID {
		return true // the owner may go on using what it just made read-only
	}
	return want == 4 && c.may(f, 1) // executing needs reading
}

// openName looks the name up, or creates it.
func (c *compound) openName(d store.Attr, a openArgs) (f store.Attr, created bool, st proto.Status) {
	if !c.may(d, 1) {
		return f, false, proto.ErrAccess
	}
	if !a.create {
		f, settled, err := c.x.vol.Lookup(d.Ino, a.name)
		c.after(max(settled, f.Settled))
		return f, false, c.fail(err)
	}
	r := store.Record{Kind: proto.Reg, Set: c.ownerOf(a.set), Verf: a.verf, Origin: c.mark()}
	if !r.Set.Mask.Has(proto.AttrMode) {
		r.Set.Mode = 0o600 // EXCLUSIVE4: until the client's SETATTR
	}
	f, settled, err := c.x.vol.Lookup(d.Ino, a.name)
	if errors.Is(err, syscall.ENOENT) {
		if !c.may(d, 3) {
			return f, false, proto.ErrAccess
		}
		f, settled, err = c.x.vol.Create(d.Ino, a.name, r)
		if err == nil {
			c.after(settled)
			return f, true, proto.OK
		}
		if errors.Is(err, syscall.EEXIST) { // another request was faster
			f, settled, err = c.x.vol.Lookup(d.Ino, a.name)
		}
	}
	c.after(max(settled, f.Settled))
	switch {
	case err != nil:
		return f, false, c.fail(err)
	case a.how == proto.Guarded:
		return f, false, proto.ErrExist
	case a.how >= proto.Exclusive && (f.Verf != a.verf || f.Kind != proto.Reg):
		return f, false, proto.ErrExist
	}
	return f, a.how >= proto.Exclusive, proto.OK // a repeated exclusive create
}

// truncateOnOpen applies a size of zero to an existing file (UNCHECKED4, RFC 8881 section 18.16.3).
func (c *compound) truncateOnOpen(f store.Attr, a openArgs, created bool) proto.Status {
	if created || !a.create || a.how != proto.Unchecked || !a.set.Mask.Has(proto.AttrSize) || a.set.Size != 0 {
		return proto.OK
	}
	lsn, err := c.x.vol.SetAttr(f.Ino, proto.SetAttr{Mask: proto.Bits(proto.AttrSize)}, store.Origin{})
	c.after(lsn)
	return c.fail(err)
}

// open records the open, or widens the one that the owner has already.
func (x *export) open(cl *client, ino store.Ino, a openArgs) (sid proto.Stateid, st proto.Status) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.clients[cl.id] != cl {
		return sid, proto.ErrExpired
	}
	var mine *openState
	for _, o := range x.file(ino).openList() {
		if o.c == cl && o.owner == a.owner {
			mine = o
			continue
		}
		if o.access&a.deny != 0 || o.deny&a.access != 0 {
			if !x.lapsed(o.c) {
				return sid, proto.ErrShareDenied
			}
			x.expire(o.c)
		}
	}
	if mine == nil {
		if len(cl.opens) >= maxOpens {
			return sid, proto.ErrDelay
		}
		if err := x.vol.Pin(ino); err != nil {
			return sid, proto.ErrStale
		}
		x.nextID++
		mine = &openState{id: x.nextID, c: cl, owner: a.owner, ino: ino}
		cl.opens[mine.id] = mine
		f := x.file(ino)
		f.opens = append(f.opens, mine)
	}
	mine.access |= a.access
	mine.deny |= a.deny
	mine.seq++
	return x.stateid(mine.id, mine.seq), proto.OK
}

// openOf finds the open that a stateid names for the current file. Called with mu held.
func (c *compound) openOf(s proto.Stateid) (*openState, proto.Status) {
	if s == proto.Current {
		s = c.sid
	}
	o, l, st := c.x.find(c.client, s)
	switch {
	case st != proto.OK:
		return nil, st
	case l != nil || o.ino != c.cur:
		return nil, proto.ErrBadStateid
	}
	return o, proto.OK
}

func opClose(c *compound) proto.Status {
	c.d.U32()
	s := proto.DecodeStateid(c.d)
	if c.cur == 0 {
		return proto.ErrNoFileHandle
	}
	c.x.mu.Lock()
	o, st := c.openOf(s)
	if st == proto.OK {
		c.x.dropOpen(o)
	}
	c.x.mu.Unlock()
	if st != proto.OK {
		return st
	}
	if err := c.x.vol.Unpin(o.ino); err != nil {
		return c.fail(err)
	}
	proto.Stateid{Seq: ^uint32(0)}.Encode(c.e)
	return proto.OK
}

func opOpenDowngrade(c *compound) proto.Status {
	s := proto.DecodeStateid(c.d)
	c.d.U32()
	access, deny := c.d.U32()&proto.AccessMask, c.d.U32()
	if c.cur == 0 {
		return proto.ErrNoFileHandle
	}
	c.x.mu.Lock()
	defer c.x.mu.Unlock()
	o, st := c.openOf(s)
	switch {
	case st != proto.OK:
		return st
	case access == 0 || access&^o.access != 0 || deny&^o.deny != 0:
		return proto.ErrInval
	}
	o.access, o.deny = access, deny
	o.seq++
	c.sid = c.x.stateid(o.id, o.seq)
	c.sid.Encode(c.e)
	return proto.OK
}
