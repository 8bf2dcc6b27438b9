// Package proto holds the NFSv4.1 protocol's numbers and shared structures (RFC 8881, RFC 5662)
// that both our server and our client speak.
package proto

import "appliance/nfs/xdr"

// Limits of this implementation; each bounds memory that one request can claim.
const (
	MaxOps      = 64      // operations in one COMPOUND
	MaxIO       = 1 << 20 // bytes of one READ or WRITE
	MaxFH       = 128     // NFS4_FHSIZE
	MaxName     = 255     // bytes of a path component
	MaxTarget   = 4096    // bytes of a symbolic link
	MaxOwner    = 1024    // NFS4_OPAQUE_LIMIT
	MaxTag      = 256     // bytes of a COMPOUND's tag
	MaxAttrs    = 16384   // bytes of one attribute list
	MaxOwnerStr = 64      // bytes of a numeric owner string
)

// Operation numbers (RFC 8881 section 16.2.3).
const (
	OpAccess             = 3
	OpClose              = 4
	OpCommit             = 5
	OpCreate             = 6
	OpGetattr            = 9
	OpGetfh              = 10
	OpLink               = 11
	OpLock               = 12
	OpLockt              = 13
	OpLocku              = 14
	OpLookup             = 15
	OpLookupp            = 16
	OpNverify            = 17
	OpOpen               = 18
	OpOpenDowngrade      = 21
	OpPutfh              = 22
	OpPutpubfh           = 23
	OpPutrootfh          = 24
	OpRead               = 25
	OpReaddir            = 26
	OpReadlink           = 27
	OpRemove             = 28
	OpRename             = 29
	OpRestorefh          = 31
	OpSavefh             = 32
	OpSecinfo            = 33
	OpSetattr            = 34
	OpVerify             = 37
	OpWrite              = 38
	OpBackchannelCtl     = 40
	OpBindConnToSession  = 41
	OpExchangeID         = 42
	OpCreateSession      = 43
	OpDestroySession     = 44
	OpFreeStateid        = 45
	OpSecinfoNoName      = 52
	OpSequence           = 53
	OpTestStateid        = 55
	OpDestroyClientid    = 57
	OpReclaimComplete    = 58
	OpLast41             = 58
	OpLast42             = 71
	OpIllegal            = 10044
	ProcNull             = 0
	ProcCompound         = 1
	MinorVersion1        = 1
	MinorVersion2        = 2
	CookieFirst          = 3 // READDIR cookies 0 to 2 are reserved
	AllOnes              = ^uint64(0)
	AppendOffset         = AllOnes // our own WRITE extension: at the end of the file, atomically
	Unstable             = 0
	DataSync             = 1
	FileSync             = 2
	FlockOffset          = uint64(1) << 63 // our client's flock(2) byte: no fcntl(2) lock reaches it
	ResultLocktypePosix  = 4               // OPEN4_RESULT_LOCKTYPE_POSIX, else Linux refuses fcntl locks
	ResultPreserveUnlink = 8               // OPEN4_RESULT_PRESERVE_UNLINKED
)

// Share access and deny bits of OPEN.
const (
	AccessRead  = 1
	AccessWrite = 2
	AccessBoth  = 3
	AccessMask  = 3 // the rest are delegation wishes
)

// How OPEN creates.
const (
	Unchecked  = 0
	Guarded    = 1
	Exclusive  = 2
	Exclusive1 = 3
)

// How OPEN names its file.
const (
	ClaimNull     = 0
	ClaimPrevious = 1
	ClaimFH       = 4
)

// Lock types.
const (
	ReadLock   = 1
	WriteLock  = 2
	ReadLockW  = 3
	WriteLockW = 4
)

// File types (nfs_ftype4).
const (
	Reg  = 1
	Dir  = 2
	Blk  = 3
	Chr  = 4
	Lnk  = 5
	Sock = 6
	Fifo = 7
)

// EXCHANGE_ID and CREATE_SESSION flags.
const (
	ExchgUsePNFSMask  = 0x00070000
	ExchgNonPNFS      = 0x00010000
	ExchgUpdConfirmed = 0x40000000
	ExchgConfirmed    = 0x80000000
)

// ACCESS bits.
const (
	MayRead    = 1
	MayLookup  = 2
	MayModify  = 4
	MayExtend  = 8
	MayDelete  = 16
	MayExecute = 32
)

// Stateid names open or lock state; Seq counts its changes.
type Stateid struct {
	Seq   uint32
	Other [12]byte
}

// Special stateids (RFC 8881 section 8.2.3).
var (
	Anonymous = Stateid{}
	Bypass    = Stateid{^uint32(0), [12]byte{255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255}}
	Current   = Stateid{Seq: 1}
)

// Encode appends the stateid.
func (s Stateid) Encode(e *xdr.Encoder) {
	e.U32(s.Seq)
	e.Fixed(s.Other[:])
}

// DecodeStateid reads a stateid.
func DecodeStateid(d *xdr.Decoder) (s Stateid) {
	s.Seq = d.U32()
	copy(s.Other[:], d.Fixed(12))
	return s
}

// SessionID names a session.
type SessionID [16]byte

// DecodeSessionID reads a session id.
func DecodeSessionID(d *xdr.Decoder) (s SessionID) {
	copy(s[:], d.Fixed(16))
	return s
}

// Channel holds a session channel's limits (channel_attrs4).
type Channel struct {
	HeaderPad, MaxRequest, MaxResponse, MaxCached, MaxOps, MaxSlots uint32
}

// Encode appends the channel's limits.
func (c Channel) Encode(e *xdr.Encoder) {
	for _, v := range []uint32{c.HeaderPad, c.MaxRequest, c.MaxResponse, c.MaxCached, c.MaxOps, c.MaxSlots, 0} {
		e.U32(v)
	}
}

// DecodeChannel reads a channel's limits.
func DecodeChannel(d *xdr.Decoder) Channel {
	c := Channel{d.U32(), d.U32(), d.U32(), d.U32(), d.U32(), d.U32()}
	for n := d.Count(1, 4); n > 0; n-- {
		d.U32()
	}
	return c
}
