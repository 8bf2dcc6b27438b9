package mount

import (
	"fmt"
	"syscall"

	"appliance/nfs/client"
	"appliance/nfs/lockrange"
	"appliance/nfs/proto"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// add makes a FUSE file handle.
func (fs *fileSystem) add(h *handle) uint64 {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.nextFH++
	fs.open[fs.nextFH] = h
	if n := fs.nodes[h.ino]; n != nil && h.f != nil {
		n.file = h.f
		n.opens++
	}
	return fs.nextFH
}

func (fs *fileSystem) get(fh uint64) *handle {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.open[fh]
}

func (fs *fileSystem) take(fh uint64) *handle {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	h := fs.open[fh]
	delete(fs.open, fh)
	if h == nil || h.f == nil {
		return h
	}
	if n := fs.nodes[h.ino]; n != nil {
		if n.opens--; n.opens == 0 {
			n.file = nil
			if n.lookups == 0 {
				delete(fs.nodes, h.ino)
			}
		}
	}
	return h
}

func newHandle(ino uint64, f *client.File, flags uint32) *handle {
	return &handle{ino: ino, f: f, app: flags&syscall.O_APPEND != 0, sync: flags&(syscall.O_SYNC|syscall.O_DSYNC) != 0}
}

func (fs *fileSystem) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	f, a, st := fs.create(cancel, &in.InHeader, name, in.Mode, in.Flags)
	if st != fuse.OK {
		return st
	}
	fs.enter(&a, &out.EntryOut)
	out.Fh = fs.add(newHandle(a.Fileid, f, in.Flags))
	out.OpenFlags = fuse.FOPEN_DIRECT_IO
	return fuse.OK
}

func (fs *fileSystem) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	fh, ok := fs.fh(in.NodeId)
	if !ok {
		return fuse.Status(syscall.ESTALE)
	}
	f, err := fs.c.Open(wait(cancel, &in.InHeader), fh, in.NodeId)
	if err != nil {
		return status(err)
	}
	out.Fh = fs.add(newHandle(in.NodeId, f, in.Flags))
	out.OpenFlags = fuse.FOPEN_DIRECT_IO
	return fuse.OK
}

func (fs *fileSystem) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	h := fs.get(in.Fh)
	if h == nil || h.f == nil {
		return nil, fuse.Status(syscall.EBADF)
	}
	n, err := h.f.Read(wait(cancel, &in.InHeader), in.Offset, buf[:min(len(buf), int(in.Size))])
	if err != nil {
		return nil, status(err)
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

func (fs *fileSystem) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	h := fs.get(in.Fh)
	if h == nil || h.f == nil {
		return 0, fuse.Status(syscall.EBADF)
	}
	w := wait(cancel, &in.InHeader)
	var err error
	if h.app || in.Flags&syscall.O_APPEND != 0 {
		err = h.f.Append(w, data)
	} else {
		err = h.f.Write(w, in.Offset, data)
	}
	if err == nil && (h.sync || in.Flags&(syscall.O_SYNC|syscall.O_DSYNC) != 0) {
		err = h.f.Commit(w)
	}
	if err != nil {
		return 0, status(err)
	}
	return uint32(len(data)), fuse.OK
}

func (fs *fileSystem) Fsync(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	h := fs.get(in.Fh)
	if h == nil || h.f == nil {
		return fuse.Status(syscall.EBADF)
	}
	return status(h.f.Commit(wait(cancel, &in.InHeader)))
}

// FsyncDir has nothing to do: the server answers directory operations when they are durable.
func (fs *fileSystem) FsyncDir(<-chan struct{}, *fuse.FsyncIn) fuse.Status { return fuse.OK }

// Flush is close(2): it drops the process's record locks on the file, as POSIX demands.
func (fs *fileSystem) Flush(cancel <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	h := fs.get(in.Fh)
	if h == nil || h.f == nil {
		return fuse.OK
	}
	return status(h.f.Release(wait(cancel, &in.InHeader), recordOwner(in.LockOwner)))
}

// releaseFlockUnlock is FUSE_RELEASE_FLOCK_UNLOCK.
const releaseFlockUnlock = 1 << 1

func (fs *fileSystem) Release(cancel <-chan struct{}, in *fuse.ReleaseIn) {
	h := fs.take(in.Fh)
	if h == nil || h.f == nil {
		return
	}
	var w client.Interrupt // nobody waits for the answer, and the close must happen
	if in.ReleaseFlags&releaseFlockUnlock != 0 {
		h.f.Release(w, flockOwner(in.LockOwner))
	}
	h.f.Close(w)
}

func recordOwner(o uint64) string { return fmt.Sprintf("fcntl-%x", o) }
func flockOwner(o uint64) string  { return fmt.Sprintf("flock-%x", o) }

// lockArgs maps a lock request. flock(2) uses one byte that no fcntl(2) lock of ours reaches, so
// that both kinds stay independent, as on a local file system; yet a kernel NFS client, whose
// flock(2) is a lock of the whole file, still conflicts with it.
func lockArgs(in *fuse.LkIn) (owner string, r lockrange.Range) {
	write := in.Lk.Typ == syscall.F_WRLCK
	if in.LkFlags&fuse.LK_FLOCK != 0 {
		return flockOwner(in.Owner), lockrange.Range{Start: proto.FlockOffset, End: proto.FlockOffset, Write: write}
	}
	return recordOwner(in.Owner), lockrange.Range{Start: in.Lk.Start, End: in.Lk.End, Write: write}
}

func (fs *fileSystem) GetLk(cancel <-chan struct{}, in *fuse.LkIn, out *fuse.LkOut) fuse.Status {
	h := fs.get(in.Fh)
	if h == nil || h.f == nil {
		return fuse.Status(syscall.EBADF)
	}
	owner, r := lockArgs(in)
	held, conflict, err := h.f.TestLock(wait(cancel, &in.InHeader), owner, r)
	if err != nil {
		return status(err)
	}
	out.Lk.Typ = syscall.F_UNLCK
	if conflict {
		out.Lk = fuse.FileLock{Start: held.Start, End: min(held.End, proto.FlockOffset-1), Typ: syscall.F_RDLCK}
		if held.Write {
			out.Lk.Typ = syscall.F_WRLCK
		}
	}
	return fuse.OK
}

func (fs *fileSystem) SetLk(cancel <-chan struct{}, in *fuse.LkIn) fuse.Status {
	return fs.setLock(cancel, in, (*client.File).Lock)
}

func (fs *fileSystem) SetLkw(cancel <-chan struct{}, in *fuse.LkIn) fuse.Status {
	return fs.setLock(cancel, in, (*client.File).LockWait)
}

func (fs *fileSystem) setLock(cancel <-chan struct{}, in *fuse.LkIn, lock func(*client.File, client.Interrupt, string, lockrange.Range) error) fuse.Status {
	h := fs.get(in.Fh)
	if h == nil || h.f == nil {
		return fuse.Status(syscall.EBADF)
	}
	owner, r := lockArgs(in)
	w := wait(cancel, &in.InHeader)
	if in.Lk.Typ == syscall.F_UNLCK {
		return status(h.f.Unlock(w, owner, r))
	}
	return status(lock(h.f, w, owner, r))
}

func (fs *fileSystem) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if _, ok := fs.fh(in.NodeId); !ok {
		return fuse.Status(syscall.ESTALE)
	}
	out.Fh = fs.add(&handle{ino: in.NodeId})
	return fuse.OK
}

func (fs *fileSystem) ReleaseDir(in *fuse.ReleaseIn) { fs.take(in.Fh) }

// ReadDir continues at an offset, which is the server's cookie of the entry before; offsets 0 and 1
// stand for "." and "..".
func (fs *fileSystem) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	h := fs.get(in.Fh)
	fh, ok := fs.fh(in.NodeId)
	if h == nil || !ok {
		return fuse.Status(syscall.EBADF)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	off := in.Offset
	for ; off < 2; off++ {
		if !out.AddDirEntry(fuse.DirEntry{Name: "."[:1] + "."[:off], Ino: in.NodeId, Mode: syscall.S_IFDIR, Off: off + 1}) {
			return fuse.OK
		}
	}
	if off != h.pos || off == 2 {
		h.ahead, h.end, h.pos = nil, false, off
	}
	for {
		for len(h.ahead) > 0 {
			e := h.ahead[0]
			if !out.AddDirEntry(fuse.DirEntry{Name: e.Name, Ino: e.Attr.Fileid, Mode: kinds[e.Attr.Type], Off: e.Cookie}) {
				return fuse.OK
			}
			h.ahead, h.pos = h.ahead[1:], e.Cookie
		}
		if h.end {
			return fuse.OK
		}
		cookie := h.pos
		if cookie == 2 {
			cookie = 0
		}
		var err error
		h.ahead, h.end, err = fs.c.Readdir(wait(cancel, &in.InHeader), fh, cookie)
		if err != nil {
			return status(err)
		}
	}
}
