package store

import (
	"fmt"

	"appliance/nfs/proto"
)

// Apply executes a record. Records were checked before they were logged, so a failure here means
// that log and table disagree: the caller must stop the volume.
func (t *Table) Apply(r *Record) error {
	if r.LSN != t.lsn+1 {
		return fmt.Errorf("log record %d cannot follow %d", r.LSN, t.lsn)
	}
	if r.Epoch < t.epoch {
		return fmt.Errorf("log record %d is of epoch %d, already at %d", r.LSN, r.Epoch, t.epoch)
	}
	if err := t.apply(r); err != nil {
		return fmt.Errorf("log record %d: %w", r.LSN, err)
	}
	t.lsn, t.epoch = r.LSN, r.Epoch
	if r.Origin != (Origin{}) && r.Op != OpForget {
		t.remember(r)
	}
	return nil
}

func (t *Table) remember(r *Record) {
	slots := t.origins[r.Origin.Session]
	if slots == nil {
		slots = map[uint32]*slotOps{}
		t.origins[r.Origin.Session] = slots
	}
	s := slots[r.Origin.Slot]
	if s == nil || s.seq != r.Origin.Seq {
		s = &slotOps{seq: r.Origin.Seq, ops: map[uint32]Ino{}}
		slots[r.Origin.Slot] = s
	}
	s.ops[r.Origin.Index] = r.Ino
}

func (t *Table) apply(r *Record) error {
	switch r.Op {
	case OpClient:
		t.clients[r.Client] = true
		return nil
	case OpClientGone:
		delete(t.clients, r.Client)
		return nil
	case OpForget:
		delete(t.origins, r.Origin.Session)
		return nil
	case OpCreate:
		return t.applyCreate(r)
	case OpRemove:
		return t.applyRemove(r)
	case OpRename:
		return t.applyRename(r)
	case OpLink:
		return t.applyLink(r)
	}
	n := t.inodes[r.Ino]
	if n == nil {
		return fmt.Errorf("no inode %d", r.Ino)
	}
	switch r.Op {
	case OpSetAttr:
		t.applySet(n, r)
	case OpWrite:
		t.applyWrite(n, r)
	case OpFree:
		t.bytes -= n.Size
		delete(t.inodes, r.Ino)
	default:
		return fmt.Errorf("unknown operation %d", r.Op)
	}
	return nil
}

func (t *Table) dir(ino Ino) (*inode, error) {
	n := t.inodes[ino]
	if n == nil || n.dir == nil {
		return nil, fmt.Errorf("no directory %d", ino)
	}
	return n, nil
}

func (n *inode) touch(r *Record) { n.Ctime, n.Change, n.Settled = r.Time, r.LSN, r.LSN }

func (n *inode) touchDir(r *Record) {
	n.Mtime = r.Time
	n.touch(r)
}

func (t *Table) applyCreate(r *Record) error {
	d, err := t.dir(r.Dir)
	if err != nil {
		return err
	}
	if d.dir.names[r.Name] != nil || t.inodes[r.Ino] != nil || r.Ino < t.nextIno {
		return fmt.Errorf("create of %d in %d clashes", r.Ino, r.Dir)
	}
	n := &inode{Attr: Attr{Ino: r.Ino, Kind: r.Kind, Mode: r.Set.Mode, UID: r.Set.UID, GID: r.Set.GID, Nlink: 1,
		Size: uint64(len(r.Target)), Atime: r.Time, Mtime: r.Time, Btime: r.Time, Major: r.Major, Minor: r.Minor, Verf: r.Verf},
		target: r.Target}
	if r.Set.Mask.Has(proto.AttrSize) {
		n.Size = r.Set.Size
	}
	if r.Set.Mask.Has(proto.AttrAtimeSet) {
		n.Atime = r.Set.Atime
	}
	if r.Set.Mask.Has(proto.AttrMtimeSet) {
		n.Mtime = r.Set.Mtime
	}
	if r.Kind == proto.Dir {
		n.Nlink, n.dir, n.Parent = 2, newDirectory(), r.Dir
		d.Nlink++
	}
	n.touch(r)
	t.bytes += n.Size
	t.inodes[r.Ino] = n
	t.nextIno = r.Ino + 1
	d.dir.add(r.Name, r.Ino)
	d.touchDir(r)
	return nil
}

// drop takes one name away from an inode.
func (t *Table) drop(d *inode, ino Ino, r *Record) {
	n := t.inodes[ino]
	n.touch(r)
	if n.dir != nil {
		d.Nlink--
		t.bytes -= n.Size
		delete(t.inodes, ino)
		return
	}
	n.Nlink--
}

func (t *Table) applyRemove(r *Record) error {
	d, err := t.dir(r.Dir)
	if err != nil {
		return err
	}
	e := d.dir.names[r.Name]
	if e == nil {
		return fmt.Errorf("remove of a missing name in %d", r.Dir)
	}
	ino := e.Ino
	d.dir.remove(r.Name)
	t.drop(d, ino, r)
	d.touchDir(r)
	return nil
}

func (t *Table) applyRename(r *Record) error {
	from, err := t.dir(r.Dir)
	if err != nil {
		return err
	}
	to, err := t.dir(r.Dir2)
	if err != nil {
		return err
	}
	e := from.dir.names[r.Name]
	if e == nil {
		return fmt.Errorf("rename of a missing name in %d", r.Dir)
	}
	ino := e.Ino
	if old := to.dir.names[r.Name2]; old != nil {
		oldIno := old.Ino
		to.dir.remove(r.Name2)
		t.drop(to, oldIno, r)
	}
	from.dir.remove(r.Name)
	to.dir.add(r.Name2, ino)
	n := t.inodes[ino]
	if n.dir != nil && r.Dir != r.Dir2 {
		from.Nlink--
		to.Nlink++
		n.Parent = r.Dir2
	}
	n.touch(r)
	from.touchDir(r)
	to.touchDir(r)
	return nil
}

func (t *Table) applyLink(r *Record) error {
	d, err := t.dir(r.Dir)
	if err != nil {
		return err
	}
	n := t.inodes[r.Ino]
	if n == nil || n.dir != nil || d.dir.names[r.Name] != nil {
		return fmt.Errorf("link of %d in %d clashes", r.Ino, r.Dir)
	}
	n.Nlink++
	n.touch(r)
	d.dir.add(r.Name, r.Ino)
	d.touchDir(r)
	return nil
}

func (t *Table) applySet(n *inode, r *Record) {
	m := r.Set.Mask
	if m.Has(proto.AttrSize) {
		t.bytes += r.Set.Size - n.Size
		n.Size, n.Mtime = r.Set.Size, r.Time
	}
	if m.Has(proto.AttrMode) {
		n.Mode = r.Set.Mode
	}
	if m.Has(proto.AttrOwner) {
		n.UID = r.Set.UID
	}
	if m.Has(proto.AttrGroup) {
		n.GID = r.Set.GID
	}
	if m.Has(proto.AttrAtimeSet) {
		n.Atime = r.Set.Atime
	}
	if m.Has(proto.AttrMtimeSet) {
		n.Mtime = r.Set.Mtime
	}
	n.touch(r)
}

// applyWrite leaves Settled alone: unstable data may be shown before it is durable, because its
// writer holds it until COMMIT and sends it again after a restart.
func (t *Table) applyWrite(n *inode, r *Record) {
	if end := r.Off + uint64(len(r.Data)); end > n.Size {
		t.bytes += end - n.Size
		n.Size = end
	}
	n.Mtime, n.Ctime, n.Change = r.Time, r.Time, r.LSN
}
