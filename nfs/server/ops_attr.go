package server

import (
	"bytes"
	"encoding/binary"

	"appliance/nfs/proto"
	"appliance/nfs/store"
	"appliance/nfs/xdr"
)

// supported are the attributes GETATTR answers; time_access_set and time_modify_set can only be set.
var supported = proto.Bits(proto.AttrSupported, proto.AttrType, proto.AttrFHExpire, proto.AttrChange, proto.AttrSize,
	proto.AttrLinkSupport, proto.AttrSymSupport, proto.AttrNamedAttr, proto.AttrFsid, proto.AttrUniqueFH,
	proto.AttrLease, proto.AttrRdError, proto.AttrACLSupport, proto.AttrCanSetTime, proto.AttrCaseInsens,
	proto.AttrCasePreserv, proto.AttrChownRestr, proto.AttrFH, proto.AttrFileid, proto.AttrFilesAvail,
	proto.AttrFilesFree, proto.AttrFilesTotal, proto.AttrHomogeneous, proto.AttrMaxFileSize, proto.AttrMaxLink,
	proto.AttrMaxName, proto.AttrMaxRead, proto.AttrMaxWrite, proto.AttrMode, proto.AttrNoTrunc,
	proto.AttrNumlinks, proto.AttrOwner, proto.AttrGroup, proto.AttrRawdev, proto.AttrSpaceAvail,
	proto.AttrSpaceFree, proto.AttrSpaceTotal, proto.AttrSpaceUsed, proto.AttrAtime, proto.AttrAtimeSet,
	proto.AttrCtimeCreate, proto.AttrTimeDelta, proto.AttrCtime, proto.AttrMtime, proto.AttrMtimeSet,
	proto.AttrMountedOn, proto.AttrSuppExclCr)

var writeOnly = proto.Bits(proto.AttrAtimeSet, proto.AttrMtimeSet)

var spaceAttrs = proto.FSAttrs

// maxInodes is what statfs shows as the number of files possible: inodes live in memory.
const maxInodes = 1 << 24

// encodeAttr appends a fattr4 with those of the wanted attributes that are supported.
func (c *compound) encodeAttr(a store.Attr, want proto.Bitmap) {
	want = want.And(supported).Not(writeOnly)
	e := c.e
	want.Encode(e)
	at := e.Len()
	e.U32(0)
	var u store.Usage
	if !want.And(spaceAttrs).Empty() {
		u = c.x.vol.Usage()
	}
	for n := 0; n < 96; n++ {
		if want.Has(n) {
			c.encodeOne(e, n, a, u)
		}
	}
	e.PutU32(at, uint32(e.Len()-at-4))
}

func (c *compound) encodeOne(e *xdr.Encoder, n int, a store.Attr, u store.Usage) {
	switch n {
	case proto.AttrSupported:
		supported.Encode(e)
	case proto.AttrSuppExclCr:
		proto.Settable.Encode(e)
	case proto.AttrType:
		e.U32(a.Kind)
	case proto.AttrFHExpire, proto.AttrRdError, proto.AttrACLSupport:
		e.U32(0)
	case proto.AttrChange:
		e.U64(a.Change)
	case proto.AttrSize:
		e.U64(a.Size)
	case proto.AttrLinkSupport, proto.AttrSymSupport, proto.AttrUniqueFH, proto.AttrCanSetTime, proto.AttrCasePreserv,
		proto.AttrChownRestr, proto.AttrHomogeneous, proto.AttrNoTrunc:
		e.Bool(true)
	case proto.AttrNamedAttr, proto.AttrCaseInsens:
		e.Bool(false)
	case proto.AttrFsid:
		e.U64(binary.BigEndian.Uint64(c.x.id[:]))
		e.U64(binary.BigEndian.Uint64(c.x.id[8:]))
	case proto.AttrLease:
		e.U32(max(1, uint32(c.x.o.Lease.Seconds())))
	case proto.AttrFH:
		e.Opaque(c.x.handle(a.Ino))
	case proto.AttrFileid, proto.AttrMountedOn:
		e.U64(uint64(a.Ino))
	case proto.AttrFilesTotal:
		e.U64(maxInodes)
	case proto.AttrFilesAvail, proto.AttrFilesFree:
		e.U64(maxInodes - min(maxInodes, u.Inodes))
	case proto.AttrSpaceAvail, proto.AttrSpaceFree:
		e.U64(u.Free)
	case proto.AttrSpaceTotal:
		e.U64(u.Total)
	default:
		encodeRest(e, n, a)
	}
}

func encodeRest(e *xdr.Encoder, n int, a store.Attr) {
	switch n {
	case proto.AttrMaxFileSize:
		e.U64(1 << 42)
	case proto.AttrMaxLink:
		e.U32(32000)
	case proto.AttrMaxName:
		e.U32(proto.MaxName)
	case proto.AttrMaxRead, proto.AttrMaxWrite:
		e.U64(proto.MaxIO)
	case proto.AttrMode:
		e.U32(a.Mode)
	case proto.AttrNumlinks:
		e.U32(a.Nlink)
	case proto.AttrOwner:
		proto.EncodeID(e, a.UID)
	case proto.AttrGroup:
		proto.EncodeID(e, a.GID)
	case proto.AttrRawdev:
		e.U32(a.Major)
		e.U32(a.Minor)
	case proto.AttrSpaceUsed:
		e.U64((a.Size + 4095) &^ 4095)
	case proto.AttrAtime:
		proto.EncodeTime(e, a.Atime)
	case proto.AttrCtimeCreate:
		proto.EncodeTime(e, a.Btime)
	case proto.AttrTimeDelta:
		proto.EncodeTime(e, 1)
	case proto.AttrCtime:
		proto.EncodeTime(e, a.Ctime)
	case proto.AttrMtime:
		proto.EncodeTime(e, a.Mtime)
	}
}

func opGetattr(c *compound) proto.Status {
	want, _ := proto.DecodeBitmap(c.d)
	a, st := c.attr()
	if st != proto.OK {
		return st
	}
	if !want.And(writeOnly).Empty() {
		return proto.ErrInval
	}
	c.encodeAttr(a, want)
	return proto.OK
}

func opVerify(c *compound) proto.Status {
	same, st := c.verify()
	if st == proto.OK && !same {
		return proto.ErrNotSame
	}
	return st
}

func opNverify(c *compound) proto.Status {
	same, st := c.verify()
	if st == proto.OK && same {
		return proto.ErrSame
	}
	return st
}

// verify compares the client's attributes with ours, byte by byte.
func (c *compound) verify() (bool, proto.Status) {
	want, unknown := proto.DecodeBitmap(c.d)
	theirs := c.d.Opaque(proto.MaxAttrs)
	switch {
	case c.d.Err() != nil:
		return false, proto.ErrBadXDR
	case unknown || !want.Not(supported).Empty():
		return false, proto.ErrAttrNotSupp
	case !want.And(writeOnly).Empty() || want.Has(proto.AttrRdError):
		return false, proto.ErrInval
	}
	a, st := c.attr()
	if st != proto.OK {
		return false, st
	}
	at := c.e.Len()
	c.encodeAttr(a, want)
	ours := xdr.NewDecoder(append([]byte(nil), c.e.B[at:]...))
	c.e.B = c.e.B[:at]
	proto.DecodeBitmap(ours)
	return bytes.Equal(ours.Opaque(proto.MaxAttrs), theirs), proto.OK
}

func opSetattr(c *compound) proto.Status {
	sid := proto.DecodeStateid(c.d)
	set, st := proto.DecodeSetAttr(c.d)
	if st != proto.OK {
		return st
	}
	a, st := c.attr()
	if st != proto.OK {
		return st
	}
	if _, done := c.x.vol.Done(c.mark()); !done {
		if st := c.maySet(a, set, sid); st != proto.OK {
			return st
		}
		lsn, err := c.x.vol.SetAttr(c.cur, set, c.mark())
		c.after(lsn)
		if err != nil {
			return c.fail(err)
		}
	}
	set.Mask.Encode(c.e)
	return proto.OK
}

// maySet checks ownership rules (chmod(2), chown(2), utimensat(2)).
func (c *compound) maySet(a store.Attr, s proto.SetAttr, sid proto.Stateid) proto.Status {
	if s.Mask.Has(proto.AttrSize) {
		if st := c.ioState(sid, proto.AccessWrite); st != proto.OK {
			return st
		}
		if sid == proto.Anonymous && !c.may(a, 2) {
			return proto.ErrAccess
		}
	}
	owner := c.cred.UID == 0 || c.cred.UID == a.UID
	switch {
	case s.Mask.Has(proto.AttrMode) && !owner:
		return proto.ErrPerm
	case s.Mask.Has(proto.AttrOwner) && s.UID != a.UID && c.cred.UID != 0:
		return proto.ErrPerm
	case s.Mask.Has(proto.AttrGroup) && s.GID != a.GID && c.cred.UID != 0 && !(owner && c.inGroup(s.GID)):
		return proto.ErrPerm
	}
	times := s.Mask.Has(proto.AttrAtimeSet) || s.Mask.Has(proto.AttrMtimeSet)
	explicit := s.Mask.Has(proto.AttrAtimeSet) && !s.AtimeNow || s.Mask.Has(proto.AttrMtimeSet) && !s.MtimeNow
	switch {
	case explicit && !owner:
		return proto.ErrPerm
	case times && !owner && !c.may(a, 2):
		return proto.ErrAccess
	}
	return proto.OK
}
