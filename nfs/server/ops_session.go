package server

import (
	"crypto/rand"

	"appliance/nfs/proto"
	"appliance/nfs/store"
	"appliance/nfs/xdr"
)

// opExchangeID implements the cases of RFC 8881 section 18.35.5.
func opExchangeID(c *compound) proto.Status {
	var verf [8]byte
	copy(verf[:], c.d.Fixed(8))
	owner := c.d.String(proto.MaxOwner)
	flags := c.d.U32()
	protect := c.d.U32()
	if c.d.Err() != nil {
		return proto.ErrBadXDR
	}
	if protect != 0 {
		return proto.ErrNotSupp // only SP4_NONE: peers are authenticated by the connection
	}
	for n := c.d.Count(1, 4); n > 0; n-- {
		c.d.String(proto.MaxOwner)
		c.d.String(proto.MaxOwner)
		c.d.I64()
		c.d.U32()
	}
	const known = 0x1 | 0x2 | 0x4 | 0x100 | proto.ExchgUsePNFSMask | proto.ExchgUpdConfirmed
	if c.d.Err() != nil || flags&^known != 0 {
		return proto.ErrInval
	}
	x := c.x
	x.mu.Lock()
	defer x.mu.Unlock()
	cl, st := x.exchange(owner, verf, flags&proto.ExchgUpdConfirmed != 0, c.conn.peer)
	if st != proto.OK {
		return st
	}
	c.e.U64(cl.id)
	c.e.U32(cl.csSeq + 1)
	rflags := uint32(proto.ExchgNonPNFS)
	if cl.confirmed {
		rflags |= proto.ExchgConfirmed
	}
	c.e.U32(rflags)
	c.e.U32(0)
	c.e.U64(0) // server_owner minor id
	c.e.Opaque(x.id[:])
	c.e.Opaque(x.id[:]) // scope: a volume is its own server, so that it can move alone
	c.e.U32(0)
	return proto.OK
}

func (x *export) exchange(owner string, verf [8]byte, update bool, peer string) (*client, proto.Status) {
	old := x.owners[owner]
	if update {
		switch {
		case old == nil:
			return nil, proto.ErrNoEnt
		case old.verf != verf:
			return nil, proto.ErrNotSame
		}
		return old, proto.OK
	}
	if old != nil && old.verf == verf {
		return old, proto.OK
	}
	if old != nil && old.peer != peer {
		x.log.Warn("two hosts use one NFS client identifier: give each its own, or they take each other's locks",
			"client", owner, "was", old.peer, "now", peer)
	}
	for _, c := range x.clients {
		if !c.confirmed && c.owner == owner {
			x.dropClient(c)
		}
	}
	x.nextID++
	c := &client{id: x.nextID, owner: owner, verf: verf, peer: peer, seen: x.o.Now(), sessions: map[proto.SessionID]*session{},
		opens: map[uint64]*openState{}, locks: map[uint64]*lockState{}}
	x.clients[c.id] = c
	return c, proto.OK
}

func opCreateSession(c *compound) proto.Status {
	id, seq := c.d.U64(), c.d.U32()
	c.d.U32() // flags: neither persistence nor a back channel is promised
	fore, back := proto.DecodeChannel(c.d), proto.DecodeChannel(c.d)
	c.d.U32()
	decodeSecParms(c.d)
	if c.d.Err() != nil {
		return proto.ErrBadXDR
	}
	x := c.x
	x.mu.Lock()
	defer x.mu.Unlock()
	cl := x.clients[id]
	switch {
	case cl == nil:
		return proto.ErrStaleClientid
	case seq == cl.csSeq && cl.csReply != nil:
		c.e.B = append(c.e.B, cl.csReply...)
		return proto.OK
	case seq != cl.csSeq+1:
		return proto.ErrSeqMisordered
	case fore.MaxRequest < 1024 || fore.MaxResponse < 1024 || fore.MaxOps == 0 || fore.MaxSlots == 0:
		return proto.ErrTooSmall
	case len(cl.sessions) >= maxSessions:
		return proto.ErrDelay
	}
	if st := c.confirm(cl); st != proto.OK {
		return st
	}
	s := newSession(cl, &fore)
	x.sessions[s.id], cl.sessions[s.id] = s, s
	cl.csSeq, cl.seen = seq, x.o.Now()
	at := c.e.Len()
	c.e.Fixed(s.id[:])
	c.e.U32(seq)
	c.e.U32(0)
	fore.Encode(c.e)
	back.Encode(c.e)
	cl.csReply = append([]byte(nil), c.e.B[at:]...)
	return proto.OK
}

func newSession(cl *client, fore *proto.Channel) *session {
	fore.HeaderPad = 0
	fore.MaxRequest = min(fore.MaxRequest, proto.MaxIO+8<<10)
	fore.MaxResponse = min(fore.MaxResponse, proto.MaxIO+8<<10)
	fore.MaxCached = min(fore.MaxCached, maxCachedRep)
	fore.MaxOps = min(fore.MaxOps, proto.MaxOps)
	fore.MaxSlots = min(fore.MaxSlots, maxSlots)
	s := &session{c: cl, slots: make([]slot, fore.MaxSlots), maxCached: fore.MaxCached}
	rand.Read(s.id[:])
	return s
}

// decodeSecParms skips callback credentials: there is no back channel.
func decodeSecParms(d *xdr.Decoder) {
	for n := d.Count(8, 4); n > 0; n-- {
		switch d.U32() {
		case 0:
		case 1:
			d.U32()
			d.String(255)
			d.U32()
			d.U32()
			for k := d.Count(16, 4); k > 0; k-- {
				d.U32()
			}
		default:
			d.Fail(proto.ErrBadXDR)
		}
	}
}

// confirm makes the client's first session valid: an older incarnation loses its state, and the
// owner is recorded as one that may reclaim. Called with mu held.
func (c *compound) confirm(cl *client) proto.Status {
	if cl.confirmed {
		return proto.OK
	}
	if old := c.x.owners[cl.owner]; old != nil && old != cl {
		c.x.dropClient(old) // rebooted: same owner stays recorded
	}
	lsn, err := c.x.vol.AddClient(cl.owner)
	if err != nil {
		return c.fail(err)
	}
	c.after(lsn)
	cl.confirmed = true
	c.x.owners[cl.owner] = cl
	return proto.OK
}

func opDestroySession(c *compound) proto.Status {
	id := proto.DecodeSessionID(c.d)
	c.x.mu.Lock()
	defer c.x.mu.Unlock()
	s := c.x.sessions[id]
	if s == nil {
		return proto.ErrBadSession
	}
	delete(c.x.sessions, id)
	delete(s.c.sessions, id)
	return c.fail(c.x.vol.Forget(id))
}

func opDestroyClientid(c *compound) proto.Status {
	id := c.d.U64()
	c.x.mu.Lock()
	defer c.x.mu.Unlock()
	cl := c.x.clients[id]
	switch {
	case cl == nil:
		return proto.ErrStaleClientid
	case len(cl.sessions) > 0 || len(cl.opens) > 0:
		return proto.ErrClientidBusy
	}
	if cl.confirmed {
		lsn, err := c.x.vol.RemoveClient(cl.owner)
		if err != nil {
			return c.fail(err)
		}
		c.after(lsn)
		delete(c.x.reclaim, cl.owner)
	}
	c.x.dropClient(cl)
	c.x.maybeEndGrace()
	return proto.OK
}

func opBindConn(c *compound) proto.Status {
	id := proto.DecodeSessionID(c.d)
	c.d.U32()
	c.d.Bool()
	c.x.mu.Lock()
	defer c.x.mu.Unlock()
	if c.x.sessions[id] == nil {
		return proto.ErrBadSession
	}
	c.e.Fixed(id[:])
	c.e.U32(1) // fore channel only
	c.e.Bool(false)
	return proto.OK
}

func opBackchannelCtl(c *compound) proto.Status {
	c.d.U32()
	decodeSecParms(c.d)
	return proto.OK
}

func opSequence(c *compound) proto.Status {
	id := proto.DecodeSessionID(c.d)
	seq, slotNo, highest := c.d.U32(), c.d.U32(), c.d.U32()
	c.cache = c.d.Bool()
	if c.d.Err() != nil {
		return proto.ErrBadXDR
	}
	c.origin = store.Origin{Session: id, Slot: slotNo, Seq: seq}
	x := c.x
	x.mu.Lock()
	defer x.mu.Unlock()
	s := x.sessions[id]
	if s == nil {
		if !x.vol.Seen(c.origin) {
			return proto.ErrBadSession
		}
		c.dead = true
		encodeSequence(c.e, id, seq, slotNo, slotNo)
		return proto.OK
	}
	s.c.seen = x.o.Now()
	switch {
	case slotNo >= uint32(len(s.slots)):
		return proto.ErrBadSlot
	case highest < slotNo:
		return proto.ErrBadHighSlot
	case c.ops > proto.MaxOps:
		return proto.ErrTooManyOps
	}
	sl := &s.slots[slotNo]
	switch {
	case seq == sl.seq && sl.busy:
		return proto.ErrDelay
	case seq == sl.seq && sl.reply != nil:
		c.e.B = append(c.e.B[:c.base], sl.reply...)
		c.replayed = true
		return proto.OK
	case seq == sl.seq && seq != 0:
		return proto.ErrUncachedRep
	case seq != sl.seq+1:
		return proto.ErrSeqMisordered
	case sl.busy:
		return proto.ErrDelay
	}
	sl.seq, sl.busy, sl.reply = seq, true, nil
	c.client, c.sess, c.slot = s.c, s, sl
	encodeSequence(c.e, id, seq, slotNo, uint32(len(s.slots)-1))
	return proto.OK
}

func encodeSequence(e *xdr.Encoder, id proto.SessionID, seq, slot, highest uint32) {
	e.Fixed(id[:])
	e.U32(seq)
	e.U32(slot)
	e.U32(highest)
	e.U32(highest)
	e.U32(0)
}

func opReclaimComplete(c *compound) proto.Status {
	oneFS := c.d.Bool()
	if c.d.Err() != nil {
		return proto.ErrBadXDR
	}
	if oneFS {
		return proto.OK
	}
	c.x.mu.Lock()
	defer c.x.mu.Unlock()
	if c.client.reclaimed {
		return proto.ErrCompleteAlrdy
	}
	c.client.reclaimed = true
	delete(c.x.reclaim, c.client.owner)
	c.x.maybeEndGrace()
	return proto.OK
}

func opSecinfo(c *compound) proto.Status {
	name, st := c.name()
	if st != proto.OK {
		return st
	}
	if _, st = c.dirAttr(); st != proto.OK {
		return st
	}
	if _, _, err := c.x.vol.Lookup(c.cur, name); err != nil {
		return c.fail(err)
	}
	return c.secinfo()
}

func opSecinfoNoName(c *compound) proto.Status {
	c.d.U32()
	if c.cur == 0 {
		return proto.ErrNoFileHandle
	}
	return c.secinfo()
}

// secinfo lists AUTH_SYS and consumes the file handle (RFC 8881 section 18.29.3).
func (c *compound) secinfo() proto.Status {
	c.e.U32(1)
	c.e.U32(1)
	c.cur = 0
	return proto.OK
}
