package proto

import (
	"strconv"

	"appliance/nfs/xdr"
)

// Attribute numbers (RFC 8881 sections 5.6 and 5.7).
const (
	AttrSupported    = 0
	AttrType         = 1
	AttrFHExpire     = 2
	AttrChange       = 3
	AttrSize         = 4
	AttrLinkSupport  = 5
	AttrSymSupport   = 6
	AttrNamedAttr    = 7
	AttrFsid         = 8
	AttrUniqueFH     = 9
	AttrLease        = 10
	AttrRdError      = 11
	AttrACLSupport   = 13
	AttrCanSetTime   = 15
	AttrCaseInsens   = 16
	AttrCasePreserv  = 17
	AttrChownRestr   = 18
	AttrFH           = 19
	AttrFileid       = 20
	AttrFilesAvail   = 21
	AttrFilesFree    = 22
	AttrFilesTotal   = 23
	AttrHomogeneous  = 26
	AttrMaxFileSize  = 27
	AttrMaxLink      = 28
	AttrMaxName      = 29
	AttrMaxRead      = 30
	AttrMaxWrite     = 31
	AttrMode         = 33
	AttrNoTrunc      = 34
	AttrNumlinks     = 35
	AttrOwner        = 36
	AttrGroup        = 37
	AttrRawdev       = 41
	AttrSpaceAvail   = 42
	AttrSpaceFree    = 43
	AttrSpaceTotal   = 44
	AttrSpaceUsed    = 45
	AttrAtime        = 47
	AttrAtimeSet     = 48
	AttrCtimeCreate  = 50
	AttrTimeDelta    = 51
	AttrCtime        = 52
	AttrMtime        = 53
	AttrMtimeSet     = 54
	AttrMountedOn    = 55
	AttrSuppExclCr   = 75
	maxBitmapWords   = 8
	nanosPerSecond   = 1_000_000_000
	SetToServerTime  = 0
	SetToClientTime  = 1
	FHExpirePersist  = 0
	maxNumericDigits = 10
)

// Bitmap is a set of attribute numbers below 96.
type Bitmap [3]uint32

// Bits makes a set.
func Bits(ns ...int) (b Bitmap) {
	for _, n := range ns {
		b.Set(n)
	}
	return b
}

// Has says whether attribute n is in the set.
func (b Bitmap) Has(n int) bool { return b[n/32]&(1<<(n%32)) != 0 }

// Set adds attribute n.
func (b *Bitmap) Set(n int) { b[n/32] |= 1 << (n % 32) }

// And is the intersection.
func (b Bitmap) And(o Bitmap) Bitmap { return Bitmap{b[0] & o[0], b[1] & o[1], b[2] & o[2]} }

// Not is the difference.
func (b Bitmap) Not(o Bitmap) Bitmap { return Bitmap{b[0] &^ o[0], b[1] &^ o[1], b[2] &^ o[2]} }

// Empty says whether the set is empty.
func (b Bitmap) Empty() bool { return b == Bitmap{} }

// Encode appends the set without trailing zero words.
func (b Bitmap) Encode(e *xdr.Encoder) {
	n := 3
	for n > 0 && b[n-1] == 0 {
		n--
	}
	e.U32(uint32(n))
	for _, w := range b[:n] {
		e.U32(w)
	}
}

// DecodeBitmap reads a set. Unknown is true when it names attributes that Bitmap cannot hold.
func DecodeBitmap(d *xdr.Decoder) (b Bitmap, unknown bool) {
	n := d.Count(maxBitmapWords, 4)
	for i := 0; i < n; i++ {
		w := d.U32()
		if i < len(b) {
			b[i] = w
		} else if w != 0 {
			unknown = true
		}
	}
	return b, unknown
}

// EncodeTime appends nanoseconds since the epoch as an nfstime4.
func EncodeTime(e *xdr.Encoder, ns int64) {
	s, n := ns/nanosPerSecond, ns%nanosPerSecond
	if n < 0 {
		s, n = s-1, n+nanosPerSecond
	}
	e.I64(s)
	e.U32(uint32(n))
}

// DecodeTime reads an nfstime4; times outside what 64 bits of nanoseconds hold are clamped.
func DecodeTime(d *xdr.Decoder) int64 {
	s, n := d.I64(), d.U32()
	const limit = 1<<63/nanosPerSecond - 1
	if n >= nanosPerSecond {
		d.Fail(ErrInval)
	}
	s = max(-limit, min(limit, s))
	return s*nanosPerSecond + int64(n)
}

// EncodeID appends a numeric owner or group string, as AUTH_SYS clients use (RFC 8881 section 5.9).
func EncodeID(e *xdr.Encoder, id uint32) { e.String(strconv.FormatUint(uint64(id), 10)) }

// DecodeID reads a numeric owner or group string.
func DecodeID(d *xdr.Decoder) (uint32, Status) {
	s := d.String(MaxOwner)
	if d.Err() != nil {
		return 0, ErrBadXDR
	}
	v, err := strconv.ParseUint(s, 10, 32)
	if err != nil || len(s) > maxNumericDigits {
		return 0, ErrBadOwner
	}
	return uint32(v), OK
}

// SetAttr is what SETATTR, CREATE and OPEN may set. Mask says which fields count.
type SetAttr struct {
	Mask           Bitmap
	Size           uint64
	Mode, UID, GID uint32
	Atime, Mtime   int64 // nanoseconds since the epoch
	AtimeNow       bool
	MtimeNow       bool
}

// Settable holds the attributes SetAttr can carry.
var Settable = Bits(AttrSize, AttrMode, AttrOwner, AttrGroup, AttrAtimeSet, AttrMtimeSet)

// Encode appends a fattr4.
func (a SetAttr) Encode(e *xdr.Encoder) {
	a.Mask.Encode(e)
	at := e.Len()
	e.U32(0)
	if a.Mask.Has(AttrSize) {
		e.U64(a.Size)
	}
	if a.Mask.Has(AttrMode) {
		e.U32(a.Mode)
	}
	if a.Mask.Has(AttrOwner) {
		EncodeID(e, a.UID)
	}
	if a.Mask.Has(AttrGroup) {
		EncodeID(e, a.GID)
	}
	encodeSetTime(e, a.Mask.Has(AttrAtimeSet), a.AtimeNow, a.Atime)
	encodeSetTime(e, a.Mask.Has(AttrMtimeSet), a.MtimeNow, a.Mtime)
	e.PutU32(at, uint32(e.Len()-at-4))
}

func encodeSetTime(e *xdr.Encoder, has, now bool, ns int64) {
	switch {
	case !has:
	case now:
		e.U32(SetToServerTime)
	default:
		e.U32(SetToClientTime)
		EncodeTime(e, ns)
	}
}

// DecodeSetAttr reads a fattr4. The status tells of attributes that cannot be set or bad owners;
// malformed bytes are an error of d.
func DecodeSetAttr(d *xdr.Decoder) (a SetAttr, st Status) {
	var unknown bool
	a.Mask, unknown = DecodeBitmap(d)
	body := xdr.NewDecoder(d.Opaque(MaxAttrs))
	if d.Err() != nil {
		return a, ErrBadXDR
	}
	if unknown || !a.Mask.Not(Settable).Empty() {
		return a, ErrAttrNotSupp
	}
	if a.Mask.Has(AttrSize) {
		a.Size = body.U64()
	}
	if a.Mask.Has(AttrMode) {
		if a.Mode = body.U32(); a.Mode > 07777 {
			st = ErrInval
		}
	}
	var s2 Status
	if a.Mask.Has(AttrOwner) {
		a.UID, s2 = DecodeID(body)
		st = max(st, s2)
	}
	if a.Mask.Has(AttrGroup) {
		a.GID, s2 = DecodeID(body)
		st = max(st, s2)
	}
	if a.Mask.Has(AttrAtimeSet) {
		a.AtimeNow, a.Atime = decodeSetTime(body)
	}
	if a.Mask.Has(AttrMtimeSet) {
		a.MtimeNow, a.Mtime = decodeSetTime(body)
	}
	if body.Err() == ErrInval {
		return a, ErrInval
	}
	if body.Err() != nil || body.Len() != 0 {
		return a, ErrBadXDR
	}
	return a, st
}

func decodeSetTime(d *xdr.Decoder) (now bool, ns int64) {
	switch d.U32() {
	case SetToServerTime:
		return true, 0
	case SetToClientTime:
		return false, DecodeTime(d)
	}
	d.Fail(ErrBadXDR)
	return false, 0
}
