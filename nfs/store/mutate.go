package store

import (
	"errors"
	"syscall"

	"appliance/nfs/proto"
)

const maxLinks = 32000

// Create makes an inode under dir/name. r carries Kind, Set, Target, Major, Minor, Verf, Origin.
func (v *Volume) Create(dir Ino, name string, r Record) (a Attr, lsn uint64, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	d, err := v.getDir(dir)
	if err != nil {
		return a, 0, err
	}
	if d.dir.names[name] != nil {
		return a, d.Settled, syscall.EEXIST
	}
	if d.Nlink >= maxLinks && r.Kind == proto.Dir {
		return a, 0, syscall.EMLINK
	}
	if err := v.space.need(uint64(len(r.Target))); err != nil {
		return a, 0, err
	}
	r.Op, r.Time, r.Ino, r.Dir, r.Name = OpCreate, v.now(), v.t.nextIno, dir, name
	if d.Mode&syscall.S_ISGID != 0 {
		r.Set.GID = d.GID
		if r.Kind == proto.Dir {
			r.Set.Mode |= syscall.S_ISGID
		}
	}
	if r.Set.Size > 0 {
		r.Set.Mask[0] &^= 1 << proto.AttrSize // a hole that nobody needs
	}
	r.Set = resolveTimes(r.Set, r.Time)
	lsn, err = v.commit(&r)
	if err != nil {
		return a, 0, err
	}
	return v.t.inodes[r.Ino].Attr, lsn, nil
}

func resolveTimes(s proto.SetAttr, now int64) proto.SetAttr {
	if s.AtimeNow {
		s.Atime = now
	}
	if s.MtimeNow {
		s.Mtime = now
	}
	return s
}

// Remove takes dir/name away. dirsOnly and filesOnly are rmdir and unlink; neither means any.
func (v *Volume) Remove(dir Ino, name string, o Origin) (lsn uint64, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	d, err := v.getDir(dir)
	if err != nil {
		return 0, err
	}
	e := d.dir.names[name]
	if e == nil {
		return d.Settled, syscall.ENOENT
	}
	n := v.t.inodes[e.Ino]
	if n.dir != nil && len(n.dir.names) > 0 {
		return n.Settled, syscall.ENOTEMPTY
	}
	lsn, err = v.commit(&Record{Op: OpRemove, Time: v.now(), Dir: dir, Name: name, Ino: n.Ino, Origin: o})
	if err != nil {
		return 0, err
	}
	return lsn, v.freeUnused(n)
}

// freeUnused frees an inode without names and users. Called with mu held.
func (v *Volume) freeUnused(n *inode) error {
	if n.Nlink > 0 || n.dir != nil || v.pins[n.Ino] > 0 || v.t.inodes[n.Ino] == nil {
		return nil
	}
	lsn, err := v.commit(&Record{Op: OpFree, Time: v.now(), Ino: n.Ino})
	if err == nil && n.Kind == proto.Reg {
		v.trash = append(v.trash, freed{n.Ino, lsn})
	}
	return err
}

// Rename moves dir/name to dir2/name2, replacing what is there (rename(2)).
func (v *Volume) Rename(dir Ino, name string, dir2 Ino, name2 string, o Origin) (lsn uint64, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	from, err := v.getDir(dir)
	if err != nil {
		return 0, err
	}
	to, err := v.getDir(dir2)
	if err != nil {
		return 0, err
	}
	e := from.dir.names[name]
	if e == nil {
		return from.Settled, syscall.ENOENT
	}
	n := v.t.inodes[e.Ino]
	var old *inode
	if oe := to.dir.names[name2]; oe != nil {
		old = v.t.inodes[oe.Ino]
	}
	if old == n {
		return max(from.Settled, to.Settled), nil // two names of one file: nothing happens
	}
	if err := v.checkRename(n, old, to); err != nil {
		return max(from.Settled, to.Settled), err
	}
	lsn, err = v.commit(&Record{Op: OpRename, Time: v.now(), Ino: n.Ino, Dir: dir, Name: name, Dir2: dir2, Name2: name2, Origin: o})
	if err != nil || old == nil {
		return lsn, err
	}
	return lsn, v.freeUnused(old)
}

// checkRename refuses what the table could not hold: old is the inode to be replaced, or nil.
func (v *Volume) checkRename(n, old, to *inode) error {
	if n.dir != nil {
		for d := to; ; d = v.t.inodes[d.Parent] {
			if d == n {
				return syscall.EINVAL
			}
			if d.Ino == Root {
				break
			}
		}
	}
	switch {
	case old == nil && n.dir != nil && n.Parent != to.Ino && to.Nlink >= maxLinks:
		return syscall.EMLINK
	case old == nil:
		return nil
	case n.dir != nil && old.dir == nil, n.dir == nil && old.dir != nil:
		return syscall.EEXIST // NFS4ERR_EXIST, RFC 8881 section 18.26.3; clients know the errno
	case old.dir != nil && len(old.dir.names) > 0:
		return syscall.EEXIST
	}
	return nil
}

// Link gives ino another name.
func (v *Volume) Link(ino, dir Ino, name string, o Origin) (lsn uint64, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	n, err := v.get(ino)
	if err != nil {
		return 0, err
	}
	d, err := v.getDir(dir)
	switch {
	case err != nil:
		return 0, err
	case n.dir != nil:
		return 0, syscall.EISDIR
	case n.Nlink == 0:
		return 0, syscall.ENOENT
	case n.Nlink >= maxLinks:
		return 0, syscall.EMLINK
	case d.dir.names[name] != nil:
		return d.Settled, syscall.EEXIST
	}
	if err := v.space.need(0); err != nil {
		return 0, err
	}
	return v.commit(&Record{Op: OpLink, Time: v.now(), Ino: ino, Dir: dir, Name: name, Origin: o})
}

// SetAttr changes attributes. A shrinking file is cut only when the log record is durable, since
// the cut cannot be undone.
func (v *Volume) SetAttr(ino Ino, s proto.SetAttr, o Origin) (lsn uint64, err error) {
	if !s.Mask.Has(proto.AttrSize) {
		v.mu.Lock()
		defer v.mu.Unlock()
		return v.setAttr(ino, s, o)
	}
	f := v.files.acquire(ino)
	defer v.files.release(f)
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := v.guard(ino, f, s.Size, 0); err != nil {
		return 0, err
	}
	v.mu.Lock()
	n, err := v.get(ino)
	if err == nil {
		err = v.checkSize(n, s.Size)
	}
	var old uint64
	if err == nil {
		old = n.Size
		lsn, err = v.setAttr(ino, s, o)
		if s.Size < old {
			v.files.cut(f, s.Size)
		}
		v.files.markDirty(f)
	}
	v.mu.Unlock()
	if err == nil && s.Size < old {
		err = v.Wait(lsn)
	}
	if err != nil {
		return 0, err
	}
	if err := v.files.truncate(ino, f, old, min(old, s.Size)); err != nil {
		return 0, v.fail(err)
	}
	return lsn, nil
}

func (v *Volume) setAttr(ino Ino, s proto.SetAttr, o Origin) (uint64, error) {
	if _, err := v.get(ino); err != nil {
		return 0, err
	}
	now := v.now()
	return v.commit(&Record{Op: OpSetAttr, Time: now, Ino: ino, Set: resolveTimes(s, now), Origin: o})
}

func (v *Volume) checkSize(n *inode, size uint64) error {
	switch {
	case n.dir != nil:
		return syscall.EISDIR
	case n.Kind != proto.Reg:
		return syscall.EINVAL
	case size > maxFileSize:
		return syscall.EFBIG
	case size > n.Size && v.o.MaxBytes != 0 && v.t.bytes+size-n.Size > v.o.MaxBytes:
		return syscall.ENOSPC
	}
	return nil
}

// Write stores data at off; an off of proto.AppendOffset means at the end. stable says that the
// caller will wait for the LSN before it replies. data must not change afterwards.
func (v *Volume) Write(ino Ino, off uint64, data []byte, stable bool, o Origin) (lsn uint64, err error) {
	f := v.files.acquire(ino)
	defer v.files.release(f)
	f.mu.Lock()
	defer f.mu.Unlock()
	wait, err := v.guard(ino, f, off, uint64(len(data)))
	if err != nil {
		return 0, err
	}
	return v.writeGuarded(ino, f, off, data, stable, wait, o)
}

// writeGuarded is Write after guard has said whether to wait. A checkpoint may have begun since.
func (v *Volume) writeGuarded(ino Ino, f *file, off uint64, data []byte, stable, wait bool, o Origin) (lsn uint64, err error) {
	v.mu.Lock()
	old, off, lsn, err := v.logWrite(ino, off, data, stable, o)
	if err == nil {
		wait = v.files.changed(f, off, uint64(len(data))) || wait
	}
	v.files.markDirty(f) // under mu: a checkpoint either sees the mark or does not contain the record
	v.mu.Unlock()
	if err != nil || len(data) == 0 {
		return lsn, err
	}
	if wait {
		if err := v.Wait(lsn); err != nil {
			return 0, err
		}
	}
	if err := v.files.write(ino, f, old, off, data); err != nil {
		return 0, v.fail(err)
	}
	return lsn, nil
}

// guard looks at the sums of what is about to be overwritten, or cut off at off if n is 0. What the record's own
// checks refuse is theirs. Called with the file's mu.
func (v *Volume) guard(ino Ino, f *file, off, n uint64) (wait bool, err error) {
	a, err := v.Attr(ino)
	if err != nil || a.Kind != proto.Reg {
		return false, nil
	}
	switch {
	case off == proto.AppendOffset:
		off = a.Size
	case off+n < off || off+n > maxFileSize:
		return false, nil
	case n == 0 && off%sumBlock != 0 && off < a.Size:
		n = 1 // the rest of that block stays
	}
	wait, err = v.files.guard(ino, f, a.Size, off, n)
	return wait, v.broken(f, err)
}

// broken passes on damage, which concerns one file, and stops the volume because of any other error.
func (v *Volume) broken(f *file, err error) error {
	var damaged *damagedError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &damaged):
		return v.fail(err)
	case v.files.met(f, damaged.block):
		v.o.Log.Error("volume: "+damaged.Error(), "dir", v.dir)
	}
	return err
}

func (v *Volume) logWrite(ino Ino, off uint64, data []byte, stable bool, o Origin) (old, at, lsn uint64, err error) {
	n, err := v.get(ino)
	if err != nil {
		return 0, 0, 0, err
	}
	if off == proto.AppendOffset {
		off = n.Size
	}
	end := off + uint64(len(data))
	if end < off {
		return 0, 0, 0, syscall.EINVAL
	}
	if err := v.checkSize(n, max(end, n.Size)); err != nil {
		return 0, 0, 0, err
	}
	if len(data) == 0 {
		return n.Size, off, n.Settled, nil
	}
	if err := v.space.need(uint64(len(data))); err != nil {
		return 0, 0, 0, err
	}
	old = n.Size
	lsn, err = v.commit(&Record{Op: OpWrite, Time: v.now(), Ino: ino, Off: off, Data: data, Origin: o})
	if err == nil && stable {
		n.Settled = lsn
	}
	return old, off, lsn, err
}

// Read fills buf from off. It returns how much there was, and whether that reaches the end.
func (v *Volume) Read(ino Ino, off uint64, buf []byte) (n int, eof bool, settled uint64, err error) {
	f := v.files.acquire(ino)
	defer v.files.release(f)
	f.mu.RLock()
	defer f.mu.RUnlock()
	a, err := v.Attr(ino)
	if err != nil {
		return 0, false, 0, err
	}
	if a.Kind == proto.Dir {
		return 0, false, 0, syscall.EISDIR
	}
	if a.Kind != proto.Reg {
		return 0, false, 0, syscall.EINVAL
	}
	if off >= a.Size {
		return 0, true, a.Settled, nil
	}
	n = int(min(uint64(len(buf)), a.Size-off))
	if err := v.broken(f, v.files.read(ino, f, a.Size, off, buf[:n])); err != nil {
		return 0, false, 0, err
	}
	return n, off+uint64(n) == a.Size, a.Settled, nil
}

// Commit returns the LSN to wait for so that all writes to ino are durable.
func (v *Volume) Commit(ino Ino) (uint64, error) {
	a, err := v.Attr(ino)
	if err == nil && a.Kind != proto.Reg {
		err = syscall.EINVAL
	}
	return a.Change, err
}

// Pin keeps an unlinked inode alive while it is open. It fails for an inode that is gone.
func (v *Volume) Pin(ino Ino) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, err := v.get(ino); err != nil {
		return err
	}
	v.pins[ino]++
	return nil
}

// Unpin undoes one Pin.
func (v *Volume) Unpin(ino Ino) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.pins[ino]--; v.pins[ino] > 0 {
		return nil
	}
	delete(v.pins, ino)
	n := v.t.inodes[ino]
	if n == nil {
		return nil
	}
	return v.freeUnused(n)
}

// FreeOrphans frees inodes that were unlinked and open before a restart and that nobody reclaimed.
func (v *Volume) FreeOrphans() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, n := range v.t.inodes {
		if n.Nlink == 0 {
			if err := v.freeUnused(n); err != nil {
				return err
			}
		}
	}
	return nil
}

// AddClient records that a client may reclaim after a restart.
func (v *Volume) AddClient(owner string) (uint64, error) {
	return v.client(OpClient, owner, false)
}

// RemoveClient records that a client may not reclaim. Wait for it before giving away its locks.
func (v *Volume) RemoveClient(owner string) (uint64, error) {
	return v.client(OpClientGone, owner, true)
}

func (v *Volume) client(op Op, owner string, have bool) (uint64, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.t.clients[owner] != have {
		return 0, nil
	}
	return v.commit(&Record{Op: op, Time: v.now(), Client: owner})
}

// Forget drops the memory of a session's requests: no retry can come any more.
func (v *Volume) Forget(s proto.SessionID) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.t.origins[s] == nil {
		return nil
	}
	_, err := v.commit(&Record{Op: OpForget, Time: v.now(), Origin: Origin{Session: s}})
	return err
}
