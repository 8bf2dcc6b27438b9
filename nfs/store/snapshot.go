package store

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"appliance/nfs/proto"
	"appliance/nfs/xdr"
)

// snapshotVersion is the first word of an encoded table. Raise it with every change of layout.
const snapshotVersion = 1

// Encode writes the whole table; equal tables give equal bytes.
func (t *Table) Encode() []byte {
	e := xdr.Encoder{B: make([]byte, 0, 64+160*len(t.inodes))}
	e.U32(snapshotVersion)
	for _, v := range []uint64{t.lsn, t.epoch, uint64(t.nextIno), t.bytes, uint64(len(t.inodes))} {
		e.U64(v)
	}
	for _, ino := range slices.Sorted(maps.Keys(t.inodes)) {
		encodeInode(&e, t.inodes[ino])
	}
	e.U64(uint64(len(t.clients)))
	for _, c := range slices.Sorted(maps.Keys(t.clients)) {
		e.String(c)
	}
	n := 0
	at := e.Len()
	e.U64(0)
	bySession := func(a, b proto.SessionID) int { return bytes.Compare(a[:], b[:]) }
	for _, sid := range slices.SortedFunc(maps.Keys(t.origins), bySession) {
		for _, slot := range slices.Sorted(maps.Keys(t.origins[sid])) {
			s := t.origins[sid][slot]
			for _, idx := range slices.Sorted(maps.Keys(s.ops)) {
				r := Record{Ino: s.ops[idx], Origin: Origin{sid, slot, s.seq, idx}}
				r.encodeOrigin(&e)
				e.U64(uint64(r.Ino))
				n++
			}
		}
	}
	e.PutU32(at+4, uint32(n))
	return e.B
}

func encodeInode(e *xdr.Encoder, n *inode) {
	for _, v := range []uint64{uint64(n.Ino), n.Size, n.Change, uint64(n.Atime), uint64(n.Mtime), uint64(n.Ctime), uint64(n.Btime), uint64(n.Parent)} {
		e.U64(v)
	}
	for _, v := range []uint32{n.Kind, n.Mode, n.UID, n.GID, n.Nlink, n.Major, n.Minor} {
		e.U32(v)
	}
	e.Fixed(n.Verf[:])
	e.String(n.target)
	if n.dir == nil {
		return
	}
	e.U64(n.dir.next)
	e.U64(uint64(len(n.dir.names)))
	for _, d := range n.dir.order {
		if d.Ino != 0 {
			e.String(d.Name)
			e.U64(uint64(d.Ino))
			e.U64(d.Cookie)
		}
	}
}

// DecodeTable reads what Encode wrote.
func DecodeTable(b []byte) (*Table, error) {
	d := xdr.NewDecoder(b)
	if v := d.U32(); v != snapshotVersion {
		return nil, fmt.Errorf("snapshot has version %d, this release reads %d", v, snapshotVersion)
	}
	t := emptyTable()
	t.lsn, t.epoch, t.nextIno, t.bytes = d.U64(), d.U64(), Ino(d.U64()), d.U64()
	for n := d.U64(); n > 0 && d.Err() == nil; n-- {
		i := decodeInode(d)
		t.inodes[i.Ino] = i
	}
	for n := d.U64(); n > 0 && d.Err() == nil; n-- {
		t.clients[d.String(proto.MaxOwner)] = true
	}
	for n := d.U64(); n > 0 && d.Err() == nil; n-- {
		var r Record
		r.decodeOrigin(d)
		r.Ino = Ino(d.U64())
		t.remember(&r)
	}
	if d.Err() == nil && d.Len() != 0 {
		return nil, fmt.Errorf("snapshot has %d bytes too many", d.Len())
	}
	return t, d.Err()
}

func decodeInode(d *xdr.Decoder) *inode {
	n := &inode{}
	n.Ino, n.Size, n.Change = Ino(d.U64()), d.U64(), d.U64()
	n.Atime, n.Mtime, n.Ctime, n.Btime = d.I64(), d.I64(), d.I64(), d.I64()
	n.Parent = Ino(d.U64())
	n.Kind, n.Mode, n.UID, n.GID, n.Nlink, n.Major, n.Minor = d.U32(), d.U32(), d.U32(), d.U32(), d.U32(), d.U32(), d.U32()
	copy(n.Verf[:], d.Fixed(8))
	n.target = d.String(proto.MaxTarget)
	if n.Kind != proto.Dir {
		return n
	}
	n.dir = newDirectory()
	n.dir.next = d.U64()
	for k := d.U64(); k > 0 && d.Err() == nil; k-- {
		e := &DirEntry{d.String(proto.MaxName), Ino(d.U64()), d.U64()}
		n.dir.names[e.Name] = e
		n.dir.order = append(n.dir.order, e)
	}
	return n
}
