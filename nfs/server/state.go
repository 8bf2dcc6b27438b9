package server

import (
	"time"

	"appliance/nfs/lockrange"
	"appliance/nfs/proto"
	"appliance/nfs/store"
)

// Limits of one client's state; each bounds the server's memory.
const (
	maxSessions   = 16
	maxSlots      = 64
	maxOpens      = 1 << 16
	maxLockOwners = 1 << 16
	maxRanges     = 1 << 12 // of one lock owner on one file
	maxCachedRep  = 8 << 10 // bytes of a cached reply; only READ and READDIR are larger
)

// client is a client owner's incarnation. Guarded by export.mu, as all state below.
type client struct {
	id        uint64
	owner     string // co_ownerid
	verf      [8]byte
	peer      string
	confirmed bool
	csSeq     uint32 // of the last CREATE_SESSION
	csReply   []byte
	sessions  map[proto.SessionID]*session
	opens     map[uint64]*openState
	locks     map[uint64]*lockState
	seen      time.Time
	reclaimed bool // sent RECLAIM_COMPLETE
}

type session struct {
	id        proto.SessionID
	c         *client
	slots     []slot
	maxCached uint32
}

// slot is the exactly-once memory of one request at a time.
type slot struct {
	seq   uint32
	busy  bool
	reply []byte // of the request with number seq; nil when it was too large to keep
}

type openState struct {
	id           uint64
	seq          uint32
	c            *client
	owner        string
	ino          store.Ino
	access, deny uint32
}

type lockState struct {
	id    uint64
	seq   uint32
	c     *client
	owner string
	ino   store.Ino
	open  *openState
	set   lockrange.Set
}

// fileState is what is open and locked of one inode.
type fileState struct {
	opens []*openState
	locks []*lockState
}

func (x *export) file(ino store.Ino) *fileState {
	f := x.files[ino]
	if f == nil {
		f = &fileState{}
		x.files[ino] = f
	}
	return f
}

func remove[T comparable](s []T, v T) []T {
	for i := range s {
		if s[i] == v {
			return append(s[:i:i], s[i+1:]...)
		}
	}
	return s
}

func (x *export) stateid(id uint64, seq uint32) proto.Stateid {
	s := proto.Stateid{Seq: seq}
	putU32(s.Other[0:], x.bootTag)
	putU32(s.Other[4:], uint32(id>>32))
	putU32(s.Other[8:], uint32(id))
	return s
}

func putU32(b []byte, v uint32) {
	b[0], b[1], b[2], b[3] = byte(v>>24), byte(v>>16), byte(v>>8), byte(v)
}

func getU32(b []byte) uint32 {
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

// find resolves a stateid of client c to its open or lock state.
func (x *export) find(c *client, s proto.Stateid) (o *openState, l *lockState, st proto.Status) {
	if getU32(s.Other[:]) != x.bootTag {
		if s.Other == proto.Anonymous.Other || s.Other == proto.Bypass.Other {
			return nil, nil, proto.ErrBadStateid
		}
		return nil, nil, proto.ErrStaleStateid
	}
	id := uint64(getU32(s.Other[4:]))<<32 | uint64(getU32(s.Other[8:]))
	var seq uint32
	if o = c.opens[id]; o != nil {
		seq = o.seq
	} else if l = c.locks[id]; l != nil {
		o, seq = l.open, l.seq
	} else {
		return nil, nil, proto.ErrBadStateid
	}
	switch {
	case s.Seq > seq:
		return nil, nil, proto.ErrBadStateid
	case s.Seq != 0 && s.Seq < seq:
		return nil, nil, proto.ErrOldStateid
	}
	return o, l, proto.OK
}

// dropLock forgets a lock owner's state on a file.
func (x *export) dropLock(l *lockState) {
	delete(l.c.locks, l.id)
	f := x.file(l.ino)
	f.locks = remove(f.locks, l)
}

// dropOpen closes an open with the locks made through it. The caller unpins the inode.
func (x *export) dropOpen(o *openState) {
	delete(o.c.opens, o.id)
	f := x.file(o.ino)
	for _, l := range append([]*lockState(nil), f.locks...) {
		if l.open == o {
			x.dropLock(l)
		}
	}
	if f.opens = remove(f.opens, o); len(f.opens) == 0 && len(f.locks) == 0 {
		delete(x.files, o.ino)
	}
}

// dropClient forgets a client and everything it holds, in memory. Called with mu held.
func (x *export) dropClient(c *client) {
	for _, o := range c.opens {
		x.dropOpen(o)
		x.vol.Unpin(o.ino)
	}
	for id := range c.sessions {
		delete(x.sessions, id)
		x.vol.Forget(id)
	}
	delete(x.clients, c.id)
	if x.owners[c.owner] == c {
		delete(x.owners, c.owner)
	}
}
