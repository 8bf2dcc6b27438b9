// Package rpc holds what NFS needs of ONC RPC version 2 (RFC 5531): record marking, call and reply
// headers, and the AUTH_SYS credential.
package rpc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"appliance/nfs/xdr"
)

// Program and version numbers of NFSv4.
const (
	Program = 100003
	Version = 4
)

// MaxRecord bounds one RPC message: one mebibyte of file data plus room for headers.
const MaxRecord = 1<<20 + 16<<10

// Authentication flavors (RFC 5531 section 8.2).
const (
	AuthNone = 0
	AuthSys  = 1
)

// Accept states of a reply (RFC 5531 section 9).
const (
	Success      = 0
	ProgUnavail  = 1
	ProgMismatch = 2
	ProcUnavail  = 3
	GarbageArgs  = 4
)

// ErrRecordTooBig ends a connection: the stream cannot be resynchronised.
var ErrRecordTooBig = fmt.Errorf("rpc: record longer than %d bytes", MaxRecord)

// maxFragments stops a peer that sends endless empty fragments.
const maxFragments = 1024

// ReadRecord reads one record of at most MaxRecord bytes into a fresh slice.
func ReadRecord(r io.Reader) ([]byte, error) {
	var rec []byte
	for i := 0; i < maxFragments; i++ {
		var h [4]byte
		if _, err := io.ReadFull(r, h[:]); err != nil {
			return nil, err
		}
		v := binary.BigEndian.Uint32(h[:])
		n := int(v & 0x7fffffff)
		if len(rec)+n > MaxRecord {
			return nil, ErrRecordTooBig
		}
		old := len(rec)
		rec = append(rec, make([]byte, n)...)
		if _, err := io.ReadFull(r, rec[old:]); err != nil {
			return nil, fmt.Errorf("rpc: record cut short: %w", err)
		}
		if v&0x80000000 != 0 {
			return rec, nil
		}
	}
	return nil, errors.New("rpc: too many fragments in one record")
}

// MarkLen is the length of the record mark that StartRecord reserves.
const MarkLen = 4

// StartRecord reserves room for the record mark at the start of an empty encoder.
func StartRecord(e *xdr.Encoder) { e.U32(0) }

// EndRecord fills in the mark: one last fragment.
func EndRecord(e *xdr.Encoder) { e.PutU32(0, uint32(e.Len()-MarkLen)|0x80000000) }

// Cred is a caller's identity. UID and GID are trusted only as far as the connection's peer is.
type Cred struct {
	Flavor   uint32
	UID, GID uint32
	Groups   []uint32
}

// Call is the header of a request.
type Call struct {
	XID, Prog, Vers, Proc uint32
	RPCVers               uint32
	Cred                  Cred
}

// DecodeCall reads a call header, leaving d at the arguments.
func DecodeCall(d *xdr.Decoder) (Call, error) {
	c := Call{XID: d.U32()}
	if t := d.U32(); t != 0 {
		return c, fmt.Errorf("rpc: message type %d is not a call", t)
	}
	c.RPCVers, c.Prog, c.Vers, c.Proc = d.U32(), d.U32(), d.U32(), d.U32()
	c.Cred.Flavor = d.U32()
	body := d.Opaque(400)
	d.U32()
	d.Opaque(400)
	if d.Err() == nil && c.Cred.Flavor == AuthSys {
		decodeSys(body, &c.Cred, d)
	}
	return c, d.Err()
}

func decodeSys(body []byte, c *Cred, outer *xdr.Decoder) {
	d := xdr.NewDecoder(body)
	d.U32()
	d.Opaque(255)
	c.UID, c.GID = d.U32(), d.U32()
	n := d.Count(16, 4)
	for i := 0; i < n; i++ {
		c.Groups = append(c.Groups, d.U32())
	}
	if d.Err() != nil {
		outer.Fail(d.Err())
	}
}

// EncodeCall writes the header of an NFSv4 call with AUTH_SYS credentials.
func EncodeCall(e *xdr.Encoder, xid, proc uint32, c Cred, machine string) {
	for _, v := range []uint32{xid, 0, 2, Program, Version, proc, AuthSys} {
		e.U32(v)
	}
	var b xdr.Encoder
	b.U32(0)
	b.String(machine)
	b.U32(c.UID)
	b.U32(c.GID)
	b.U32(uint32(len(c.Groups)))
	for _, g := range c.Groups {
		b.U32(g)
	}
	e.Opaque(b.B)
	e.U32(AuthNone)
	e.U32(0)
}

// EncodeReply writes the header of an accepted reply with the given state.
func EncodeReply(e *xdr.Encoder, xid, state uint32) {
	for _, v := range []uint32{xid, 1, 0, AuthNone, 0, state} {
		e.U32(v)
	}
	if state == ProgMismatch {
		e.U32(Version)
		e.U32(Version)
	}
}

// DecodeReply reads a reply header, leaving d at the results of a successful call.
func DecodeReply(d *xdr.Decoder) (xid uint32, err error) {
	xid = d.U32()
	mtype, rstate := d.U32(), d.U32()
	if d.Err() != nil {
		return xid, d.Err()
	}
	if mtype != 1 || rstate != 0 {
		return xid, fmt.Errorf("rpc: call refused (type %d, state %d)", mtype, rstate)
	}
	d.U32()
	d.Opaque(400)
	if st := d.U32(); st != Success && d.Err() == nil {
		return xid, fmt.Errorf("rpc: call not accepted, state %d", st)
	}
	return xid, d.Err()
}
