package server

import (
	"bytes"
	"encoding/binary"
	"errors"
	"syscall"
	"unicode/utf8"

	"appliance/nfs/proto"
	"appliance/nfs/store"
)

// A file handle is the volume's random id and the inode number: stable for ever, on every replica,
// and useless for another volume.
const handleLen = volumeIDLen + 8

func (x *export) handle(ino store.Ino) []byte {
	return binary.BigEndian.AppendUint64(append(make([]byte, 0, handleLen), x.id[:]...), uint64(ino))
}

func opPutfh(c *compound) proto.Status {
	fh := c.d.Opaque(proto.MaxFH)
	if c.d.Err() != nil {
		return proto.ErrBadXDR
	}
	if len(fh) != handleLen {
		return proto.ErrBadHandle
	}
	if !bytes.Equal(fh[:volumeIDLen], c.x.id[:]) {
		return proto.ErrStale
	}
	c.cur, c.sid = store.Ino(binary.BigEndian.Uint64(fh[volumeIDLen:])), proto.Anonymous
	_, st := c.attr()
	if c.dead && st == proto.ErrStale {
		return proto.OK // its own operation may have removed it
	}
	return st
}

func opPutrootfh(c *compound) proto.Status {
	c.cur, c.sid = store.Root, proto.Anonymous
	return proto.OK
}

func opGetfh(c *compound) proto.Status {
	if c.cur == 0 {
		return proto.ErrNoFileHandle
	}
	c.e.Opaque(c.x.handle(c.cur))
	return proto.OK
}

func opSavefh(c *compound) proto.Status {
	if c.cur == 0 {
		return proto.ErrNoFileHandle
	}
	c.saved, c.ssid = c.cur, c.sid
	return proto.OK
}

func opRestorefh(c *compound) proto.Status {
	if c.saved == 0 {
		return proto.ErrRestoreFH
	}
	c.cur, c.sid = c.saved, c.ssid
	return proto.OK
}

// name reads a path component.
func (c *compound) name() (string, proto.Status) {
	b := c.d.Opaque(proto.MaxTarget)
	switch {
	case c.d.Err() != nil:
		return "", proto.ErrBadXDR
	case len(b) == 0 || !utf8.Valid(b):
		return "", proto.ErrInval
	case len(b) > proto.MaxName:
		return "", proto.ErrNameTooLong
	case string(b) == "." || string(b) == "..":
		return "", proto.ErrBadName
	case bytes.IndexByte(b, '/') >= 0 || bytes.IndexByte(b, 0) >= 0:
		return "", proto.ErrBadChar
	}
	return string(b), proto.OK
}

func opLookup(c *compound) proto.Status {
	name, st := c.name()
	if st != proto.OK {
		return st
	}
	d, st := c.dirAttr()
	if st != proto.OK {
		return st
	}
	if !c.may(d, 1) {
		return proto.ErrAccess
	}
	a, settled, err := c.x.vol.Lookup(c.cur, name)
	c.after(max(settled, a.Settled))
	if err != nil {
		return c.fail(err)
	}
	c.cur, c.sid = a.Ino, proto.Anonymous
	return proto.OK
}

func opLookupp(c *compound) proto.Status {
	d, st := c.dirAttr()
	if st != proto.OK {
		return st
	}
	if c.cur == store.Root {
		return proto.ErrNoEnt
	}
	if !c.may(d, 1) {
		return proto.ErrAccess
	}
	c.cur, c.sid = d.Parent, proto.Anonymous
	return proto.OK
}

// may checks rwx bits (4, 2, 1) for the caller.
func (c *compound) may(a store.Attr, want uint32) bool {
	u := c.cred
	if u.UID == 0 {
		return want&1 == 0 || a.Kind == proto.Dir || a.Mode&0o111 != 0
	}
	if u.UID == a.UID {
		return a.Mode>>6&want == want
	}
	if c.inGroup(a.GID) {
		return a.Mode>>3&want == want
	}
	return a.Mode&want == want
}

func (c *compound) inGroup(gid uint32) bool {
	if c.cred.GID == gid {
		return true
	}
	for _, g := range c.cred.Groups {
		if g == gid {
			return true
		}
	}
	return false
}

// mayDelete honours the sticky bit of directory d for the entry a.
func (c *compound) mayDelete(d, a store.Attr) bool {
	if !c.may(d, 3) {
		return false
	}
	return d.Mode&syscall.S_ISVTX == 0 || c.cred.UID == 0 || c.cred.UID == a.UID || c.cred.UID == d.UID
}

func opAccess(c *compound) proto.Status {
	want := c.d.U32()
	a, st := c.attr()
	if st != proto.OK {
		return st
	}
	var ok uint32
	grant := func(bits, mode uint32) {
		if c.may(a, mode) {
			ok |= bits
		}
	}
	grant(proto.MayRead, 4)
	if a.Kind == proto.Dir {
		grant(proto.MayLookup, 1)
		grant(proto.MayModify|proto.MayExtend|proto.MayDelete, 3)
	} else {
		grant(proto.MayModify|proto.MayExtend, 2)
		grant(proto.MayExecute, 1)
	}
	const known = 0x3f
	c.e.U32(want & known)
	c.e.U32(want & ok)
	return proto.OK
}

func opReadlink(c *compound) proto.Status {
	if _, st := c.attr(); st != proto.OK {
		return st
	}
	target, err := c.x.vol.Readlink(c.cur)
	if err != nil {
		if errors.Is(err, syscall.EINVAL) {
			return proto.ErrWrongType
		}
		return c.fail(err)
	}
	c.e.String(target)
	return proto.OK
}

// changeInfo encodes the directory's change attribute around an operation.
func (c *compound) changeInfo(before, after uint64) {
	c.e.Bool(false)
	c.e.U64(before)
	c.e.U64(after)
}
