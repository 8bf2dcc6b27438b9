// Package store keeps one volume: an inode table in memory, flat data files named by inode number,
// and a write-ahead log that makes both durable. No name given by a client reaches the host's
// file system.
package store

import (
	"sort"

	"appliance/nfs/proto"
)

// Ino is an inode number. Numbers are never reused, so an inode number alone is a stable handle.
type Ino uint64

// Root is the inode number of a volume's root directory.
const Root Ino = 1

// Attr is an inode's attributes. Times are nanoseconds since the epoch; Change is the LSN of the
// last change, hence monotonic over restarts and failovers.
type Attr struct {
	Ino                        Ino
	Kind                       uint32
	Mode, UID, GID, Nlink      uint32
	Size, Change               uint64
	Atime, Mtime, Ctime, Btime int64
	Major, Minor               uint32
	Parent                     Ino // of a directory
	Verf                       [8]byte
	// Settled is the LSN up to which the log must be durable before these attributes may be shown
	// to anybody: the last change other than an unstable write.
	Settled uint64
}

type inode struct {
	Attr
	target string
	dir    *directory
}

// DirEntry is one name in a directory.
type DirEntry struct {
	Name   string
	Ino    Ino
	Cookie uint64
}

// directory holds entries in cookie order. Cookies only grow, so a listing that goes on after
// other entries changed neither skips nor repeats one.
type directory struct {
	names map[string]*DirEntry
	order []*DirEntry // removed entries have Ino 0 until compaction
	next  uint64
	dead  int
}

func newDirectory() *directory {
	return &directory{names: map[string]*DirEntry{}, next: proto.CookieFirst}
}

func (d *directory) add(name string, ino Ino) {
	e := &DirEntry{name, ino, d.next}
	d.next++
	d.names[name] = e
	d.order = append(d.order, e)
}

func (d *directory) remove(name string) {
	e := d.names[name]
	delete(d.names, name)
	e.Ino = 0
	d.dead++
	if d.dead > 32 && d.dead > len(d.order)/2 {
		live := make([]*DirEntry, 0, len(d.order)-d.dead)
		for _, e := range d.order {
			if e.Ino != 0 {
				live = append(live, e)
			}
		}
		d.order, d.dead = live, 0
	}
}

// after lists up to max entries with cookies above cookie.
func (d *directory) after(cookie uint64, max int) []DirEntry {
	i := sort.Search(len(d.order), func(i int) bool { return d.order[i].Cookie > cookie })
	var out []DirEntry
	for ; i < len(d.order) && len(out) < max; i++ {
		if d.order[i].Ino != 0 {
			out = append(out, *d.order[i])
		}
	}
	return out
}

// slotOps are the operations of the newest request of a session's slot.
type slotOps struct {
	seq uint32
	ops map[uint32]Ino // by index in the COMPOUND; the inode made, if any
}

// Table is the pure state of a volume. Apply is its only mutator. Not safe for concurrent use.
type Table struct {
	inodes  map[Ino]*inode
	nextIno Ino
	lsn     uint64
	epoch   uint64
	bytes   uint64 // sum of file sizes
	clients map[string]bool
	origins map[proto.SessionID]map[uint32]*slotOps
}

// NewTable is a volume with an empty root directory.
func NewTable(mode, uid, gid uint32, now int64) *Table {
	t := emptyTable()
	t.inodes[Root] = &inode{Attr: Attr{Ino: Root, Kind: proto.Dir, Mode: mode, UID: uid, GID: gid, Nlink: 2,
		Change: 1, Atime: now, Mtime: now, Ctime: now, Btime: now, Parent: Root}, dir: newDirectory()}
	return t
}

func emptyTable() *Table {
	return &Table{inodes: map[Ino]*inode{}, nextIno: Root + 1, clients: map[string]bool{},
		origins: map[proto.SessionID]map[uint32]*slotOps{}}
}

// LSN is the sequence number of the last applied record.
func (t *Table) LSN() uint64 { return t.lsn }

// Done says whether the operation was executed already, and which inode it made.
func (t *Table) Done(o Origin) (Ino, bool) {
	s := t.origins[o.Session][o.Slot]
	if s == nil || s.seq != o.Seq {
		return 0, false
	}
	ino, ok := s.ops[o.Index]
	return ino, ok
}
