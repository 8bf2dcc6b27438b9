package server

import (
	"errors"
	"syscall"

	"appliance/nfs/proto"
	"appliance/nfs/rpc"
	"appliance/nfs/store"
	"appliance/nfs/xdr"
)

// compound is one COMPOUND at work.
type compound struct {
	x    *export
	conn *conn
	cred rpc.Cred
	d    *xdr.Decoder
	e    *xdr.Encoder
	base int // where the COMPOUND's result starts in e

	ops, index int
	cur, saved store.Ino // 0: no current or saved file handle
	sid, ssid  proto.Stateid
	client     *client
	sess       *session
	slot       *slot
	origin     store.Origin
	replayed   bool // the whole reply came from the slot
	dead       bool // a retry of a request from before a restart
	cache      bool
	solo       bool   // the only operation
	wait       uint64 // LSN that must be durable before the reply
	fatal      error  // closes the connection
}

type handler func(*compound) proto.Status

var handlers map[uint32]handler

func init() {
	handlers = map[uint32]handler{
		proto.OpAccess: opAccess, proto.OpClose: opClose, proto.OpCommit: opCommit, proto.OpCreate: opCreate,
		proto.OpGetattr: opGetattr, proto.OpGetfh: opGetfh, proto.OpLink: opLink, proto.OpLock: opLock,
		proto.OpLockt: opLockt, proto.OpLocku: opLocku, proto.OpLookup: opLookup, proto.OpLookupp: opLookupp,
		proto.OpNverify: opNverify, proto.OpOpen: opOpen, proto.OpOpenDowngrade: opOpenDowngrade,
		proto.OpPutfh: opPutfh, proto.OpPutpubfh: opPutrootfh, proto.OpPutrootfh: opPutrootfh,
		proto.OpRead: opRead, proto.OpReaddir: opReaddir, proto.OpReadlink: opReadlink, proto.OpRemove: opRemove,
		proto.OpRename: opRename, proto.OpRestorefh: opRestorefh, proto.OpSavefh: opSavefh,
		proto.OpSecinfo: opSecinfo, proto.OpSetattr: opSetattr, proto.OpVerify: opVerify, proto.OpWrite: opWrite,
		proto.OpBackchannelCtl: opBackchannelCtl, proto.OpBindConnToSession: opBindConn,
		proto.OpExchangeID: opExchangeID, proto.OpCreateSession: opCreateSession,
		proto.OpDestroySession: opDestroySession, proto.OpFreeStateid: opFreeStateid,
		proto.OpSecinfoNoName: opSecinfoNoName, proto.OpSequence: opSequence, proto.OpTestStateid: opTestStateid,
		proto.OpDestroyClientid: opDestroyClientid, proto.OpReclaimComplete: opReclaimComplete,
	}
}

// sessionless operations may come without SEQUENCE (RFC 8881 section 2.10.6.1).
var sessionless = map[uint32]bool{proto.OpExchangeID: true, proto.OpCreateSession: true, proto.OpDestroySession: true,
	proto.OpBindConnToSession: true, proto.OpDestroyClientid: true}

// afterRestart operations may run in a retry of a request from before a restart: they either change
// nothing or were recorded with the request.
var afterRestart = map[uint32]bool{proto.OpPutfh: true, proto.OpPutrootfh: true, proto.OpSavefh: true,
	proto.OpRestorefh: true, proto.OpLookup: true, proto.OpGetfh: true, proto.OpGetattr: true, proto.OpAccess: true,
	proto.OpCreate: true, proto.OpRemove: true, proto.OpRename: true, proto.OpLink: true, proto.OpSetattr: true,
	proto.OpWrite: true}

// compound decodes, executes and encodes one COMPOUND.
func (cn *conn) compound(call rpc.Call, d *xdr.Decoder, e *xdr.Encoder) error {
	c := &compound{x: cn.x, conn: cn, cred: call.Cred, d: d, e: e, base: e.Len()}
	if cn.x.vo.AllSquash {
		c.cred = rpc.Cred{UID: cn.x.vo.UID, GID: cn.x.vo.GID}
	}
	tag := d.Opaque(proto.MaxTag)
	minor := d.U32()
	c.ops = d.Count(1<<16, 4)
	if d.Err() != nil {
		return d.Err()
	}
	e.U32(0)
	e.Opaque(tag)
	count := e.Len()
	e.U32(0)
	c.solo = c.ops == 1
	st := proto.OK
	switch {
	case minor != proto.MinorVersion1 && minor != proto.MinorVersion2:
		st = proto.ErrMinorVers
	default:
		st = c.run(count)
	}
	if c.replayed {
		return nil
	}
	e.PutU32(c.base, uint32(st))
	return c.finish()
}

func (c *compound) run(count int) (st proto.Status) {
	for c.index = 0; c.index < c.ops && st == proto.OK && c.fatal == nil; c.index++ {
		op := c.d.U32()
		if c.d.Err() != nil {
			op = proto.OpIllegal
		}
		st = c.one(op)
		if c.replayed {
			return st
		}
		c.e.PutU32(count, uint32(c.index+1))
	}
	return st
}

// one executes an operation and encodes its result.
func (c *compound) one(op uint32) proto.Status {
	h, st := c.check(op)
	if h == nil && st == proto.ErrOpIllegal {
		op = proto.OpIllegal
	}
	c.e.U32(op)
	at := c.e.Len()
	c.e.U32(0)
	if st == proto.OK {
		st = h(c)
		if c.replayed {
			return st
		}
		if c.d.Err() != nil && st == proto.OK {
			st = proto.ErrBadXDR
		}
	}
	if st == proto.OK && c.e.Len()-c.base > rpc.MaxRecord-256 {
		st = proto.ErrRepTooBig
	}
	if st != proto.OK && op != proto.OpSetattr && st != proto.ErrDenied {
		c.e.B = c.e.B[:at+4] // no body but the status
	}
	if st != proto.OK && op == proto.OpSetattr {
		c.e.B = c.e.B[:at+4]
		c.e.U32(0) // attrsset is there even on error
	}
	c.e.PutU32(at, uint32(st))
	return st
}

// check decides whether the operation may run here.
func (c *compound) check(op uint32) (handler, proto.Status) {
	h := handlers[op]
	switch {
	case h == nil && op > 2 && op <= proto.OpLast42:
		return nil, proto.ErrNotSupp
	case h == nil:
		return nil, proto.ErrOpIllegal
	case op == proto.OpSequence && c.index > 0:
		return nil, proto.ErrSequencePos
	case c.index == 0 && op != proto.OpSequence && !sessionless[op]:
		return nil, proto.ErrOpNotInSession
	case c.index == 0 && op != proto.OpSequence && !c.solo:
		return nil, proto.ErrNotOnlyOp
	case c.index >= proto.MaxOps:
		return nil, proto.ErrTooManyOps
	case c.dead && c.index > 0 && !afterRestart[op]:
		return nil, proto.ErrDelay
	}
	return h, proto.OK
}

// finish waits for durability, then keeps the reply for a retry.
func (c *compound) finish() error {
	err := c.fatal
	if err == nil {
		err = c.x.vol.Wait(c.wait)
	}
	if err == nil {
		err = c.x.vol.Relieve()
	}
	if c.slot == nil {
		return err
	}
	c.x.mu.Lock()
	defer c.x.mu.Unlock()
	c.slot.busy = false
	if rep := c.e.B[c.base:]; err == nil && (len(rep) <= maxCachedRep || c.cache && len(rep) <= int(c.sess.maxCached)) {
		c.slot.reply = append([]byte(nil), rep...)
	}
	return err
}

// after makes the reply wait for an LSN.
func (c *compound) after(lsn uint64) { c.wait = max(c.wait, lsn) }

// fail turns a store error into a status. A stopped volume ends the connection, so that a hard
// mount waits instead of giving its applications errors.
func (c *compound) fail(err error) proto.Status {
	if err == nil {
		return proto.OK
	}
	var errno syscall.Errno
	if errors.As(err, &errno) && !errors.Is(err, store.ErrFailed) {
		return proto.FromErrno(errno)
	}
	c.fatal = err
	return proto.ErrServerFault
}

// mark is the identity of the current operation, for recognising retries after a restart.
func (c *compound) mark() store.Origin {
	o := c.origin
	o.Index = uint32(c.index)
	return o
}

// attr reads the current file's attributes.
func (c *compound) attr() (store.Attr, proto.Status) {
	if c.cur == 0 {
		return store.Attr{}, proto.ErrNoFileHandle
	}
	a, err := c.x.vol.Attr(c.cur)
	c.after(a.Settled)
	return a, c.fail(err)
}

// dirAttr is attr for operations that need a directory.
func (c *compound) dirAttr() (store.Attr, proto.Status) {
	a, st := c.attr()
	switch {
	case st != proto.OK:
		return a, st
	case a.Kind == proto.Lnk:
		return a, proto.ErrSymlink
	case a.Kind != proto.Dir:
		return a, proto.ErrNotDir
	}
	return a, proto.OK
}
