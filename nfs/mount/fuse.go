package mount

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"appliance/nfs/client"
	"appliance/nfs/proto"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// fileSystem translates between the kernel's FUSE requests and the NFSv4.1 client. Nothing is
// cached in the kernel (timeouts of zero, direct I/O), so that hosts see each other's changes, and
// a hot journal, at once.
type fileSystem struct {
	fuse.RawFileSystem
	c *client.Client

	mu     sync.Mutex
	root   proto.Attr // as the server last gave it
	nodes  map[uint64]*node
	open   map[uint64]*handle // by FUSE file handle
	nextFH uint64
}

// node is an inode the kernel knows. Its id is the server's fileid, which is never reused.
type node struct {
	fh      []byte
	lookups uint64
	file    *client.File // while it is open; guarded by fileSystem.mu
	opens   int
}

// handle is one open(2) of a file or directory.
type handle struct {
	ino  uint64
	f    *client.File
	app  bool // O_APPEND
	sync bool // O_SYNC or O_DSYNC

	mu    sync.Mutex // guards a directory's position
	ahead []client.Entry
	end   bool
	pos   uint64
}

func newFileSystem(c *client.Client, root proto.Attr) *fileSystem {
	return &fileSystem{RawFileSystem: fuse.NewDefaultRawFileSystem(), c: c, root: root,
		nodes: map[uint64]*node{fuse.FUSE_ROOT_ID: {lookups: 1}}, open: map[uint64]*handle{}}
}

func (fs *fileSystem) String() string { return "appliance-volume" }

// status turns a client error into what the application sees.
func status(err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return fuse.Status(errno)
	}
	var st proto.Status
	if errors.As(err, &st) {
		return fuse.Status(st.Errno())
	}
	return fuse.EIO
}

// wait makes a request give up only when its caller is being killed: a hard mount. Signals that the
// caller handles do not make its I/O fail.
func wait(cancel <-chan struct{}, h *fuse.InHeader) client.Interrupt {
	pid := h.Pid
	return client.Interrupt{C: cancel, Fatal: func() bool { return dying(pid) }}
}

// dying says whether SIGKILL is pending for a thread; the kernel marks every thread of a process
// that a fatal signal ends.
func dying(pid uint32) bool {
	if pid == 0 {
		return false // outside our PID namespace: we cannot know, and errors are worse than waiting
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return os.IsNotExist(err)
	}
	const sigkill = 1 << (9 - 1)
	for _, line := range strings.Split(string(b), "\n") {
		rest, ok := strings.CutPrefix(line, "SigPnd:")
		if !ok {
			rest, ok = strings.CutPrefix(line, "ShdPnd:")
		}
		var mask uint64
		if _, err := fmt.Sscanf(strings.TrimSpace(rest), "%x", &mask); ok && err == nil && mask&sigkill != 0 {
			return true
		}
	}
	return false
}

func (fs *fileSystem) fh(ino uint64) ([]byte, bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	n := fs.nodes[ino]
	if n == nil {
		return nil, false
	}
	return n.fh, true
}

// enter notes that the kernel got one more reference to a node.
func (fs *fileSystem) enter(a *proto.Attr, out *fuse.EntryOut) {
	fs.mu.Lock()
	n := fs.nodes[a.Fileid]
	if n == nil {
		n = &node{fh: a.FH}
		fs.nodes[a.Fileid] = n
	}
	n.lookups++
	fs.mu.Unlock()
	out.NodeId, out.Generation = a.Fileid, 1
	fill(a, &out.Attr)
}

var kinds = map[uint32]uint32{proto.Reg: syscall.S_IFREG, proto.Dir: syscall.S_IFDIR, proto.Lnk: syscall.S_IFLNK,
	proto.Blk: syscall.S_IFBLK, proto.Chr: syscall.S_IFCHR, proto.Sock: syscall.S_IFSOCK, proto.Fifo: syscall.S_IFIFO}

func fill(a *proto.Attr, out *fuse.Attr) {
	const second = 1_000_000_000
	out.Ino, out.Size, out.Blocks = a.Fileid, a.Size, a.Used/512
	out.Mode, out.Nlink = kinds[a.Type]|a.Mode, a.Nlink
	out.Uid, out.Gid = a.UID, a.GID
	out.Rdev = a.Major<<8 | a.Minor&0xff | a.Minor&^0xff<<12
	out.Blksize = 1 << 17
	out.Atime, out.Atimensec = uint64(a.Atime/second), uint32(a.Atime%second)
	out.Mtime, out.Mtimensec = uint64(a.Mtime/second), uint32(a.Mtime%second)
	out.Ctime, out.Ctimensec = uint64(a.Ctime/second), uint32(a.Ctime%second)
}

func (fs *fileSystem) Forget(ino, n uint64) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	nd := fs.nodes[ino]
	if nd == nil || ino == fuse.FUSE_ROOT_ID {
		return
	}
	if nd.lookups -= min(n, nd.lookups); nd.lookups == 0 && nd.opens == 0 {
		delete(fs.nodes, ino)
	}
}

func (fs *fileSystem) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	dir, ok := fs.fh(h.NodeId)
	if !ok {
		return fuse.Status(syscall.ESTALE)
	}
	a, err := fs.c.Lookup(wait(cancel, h), dir, name)
	if err != nil {
		return status(err)
	}
	fs.enter(&a, out)
	return fuse.OK
}

func (fs *fileSystem) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	fh, ok := fs.fh(in.NodeId)
	if !ok {
		return fuse.Status(syscall.ESTALE)
	}
	var a proto.Attr
	var err error
	if in.NodeId == fuse.FUSE_ROOT_ID {
		a, err = fs.rootAttr()
	} else {
		a, err = fs.c.Getattr(wait(cancel, &in.InHeader), fh)
	}
	if err != nil {
		return status(err)
	}
	fill(&a, &out.Attr)
	return fuse.OK
}

// rootPatience is how long a look at the mount point itself waits for the server.
const rootPatience = time.Second

// rootAttr answers for the mount point from memory while the server is away: whoever binds the mount
// into a container looks at it, and an app must start without its data's server. What is below waits.
func (fs *fileSystem) rootAttr() (proto.Attr, error) {
	ctx, cancel := context.WithTimeout(context.Background(), rootPatience)
	defer cancel()
	a, err := fs.c.Getattr(client.Interrupt{C: ctx.Done()}, nil)
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if err != nil && ctx.Err() != nil {
		return fs.root, nil
	}
	if err == nil {
		fs.root = a
	}
	return a, err
}

func (fs *fileSystem) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	fs.mu.Lock()
	n := fs.nodes[in.NodeId]
	var fh []byte
	var f *client.File
	if n != nil {
		fh, f = n.fh, n.file
	}
	fs.mu.Unlock()
	if n == nil {
		return fuse.Status(syscall.ESTALE)
	}
	a, err := fs.c.Setattr(wait(cancel, &in.InHeader), fh, f, setAttr(in))
	if err != nil {
		return status(err)
	}
	fill(&a, &out.Attr)
	return fuse.OK
}

func setAttr(in *fuse.SetAttrIn) (s proto.SetAttr) {
	set := func(bit uint32, attr int, f func()) {
		if in.Valid&bit != 0 {
			s.Mask.Set(attr)
			f()
		}
	}
	set(fuse.FATTR_SIZE, proto.AttrSize, func() { s.Size = in.Size })
	set(fuse.FATTR_MODE, proto.AttrMode, func() { s.Mode = in.Mode & 0o7777 })
	set(fuse.FATTR_UID, proto.AttrOwner, func() { s.UID = in.Uid })
	set(fuse.FATTR_GID, proto.AttrGroup, func() { s.GID = in.Gid })
	set(fuse.FATTR_ATIME, proto.AttrAtimeSet, func() {
		s.Atime, s.AtimeNow = int64(in.Atime)*1e9+int64(in.Atimensec), in.Valid&fuse.FATTR_ATIME_NOW != 0
	})
	set(fuse.FATTR_MTIME, proto.AttrMtimeSet, func() {
		s.Mtime, s.MtimeNow = int64(in.Mtime)*1e9+int64(in.Mtimensec), in.Valid&fuse.FATTR_MTIME_NOW != 0
	})
	return s
}

func owned(mode uint32, o fuse.Owner) proto.SetAttr {
	return proto.SetAttr{Mask: proto.Bits(proto.AttrMode, proto.AttrOwner, proto.AttrGroup), Mode: mode & 0o7777, UID: o.Uid, GID: o.Gid}
}

func (fs *fileSystem) make(cancel <-chan struct{}, h *fuse.InHeader, name string, n client.Node, mode uint32, out *fuse.EntryOut) fuse.Status {
	dir, ok := fs.fh(h.NodeId)
	if !ok {
		return fuse.Status(syscall.ESTALE)
	}
	a, err := fs.c.Make(wait(cancel, h), dir, name, n, owned(mode, h.Owner))
	if err != nil {
		return status(err)
	}
	fs.enter(&a, out)
	return fuse.OK
}

func (fs *fileSystem) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return fs.make(cancel, &in.InHeader, name, client.Node{Kind: proto.Dir}, in.Mode, out)
}

func (fs *fileSystem) Symlink(cancel <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	return fs.make(cancel, h, name, client.Node{Kind: proto.Lnk, Target: target}, 0o777, out)
}

func (fs *fileSystem) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	n := client.Node{Major: in.Rdev >> 8 & 0xfff, Minor: in.Rdev&0xff | in.Rdev>>12&^0xff}
	for k, m := range kinds {
		if in.Mode&syscall.S_IFMT == m {
			n.Kind = k
		}
	}
	if n.Kind != proto.Reg {
		return fs.make(cancel, &in.InHeader, name, n, in.Mode, out)
	}
	f, a, st := fs.create(cancel, &in.InHeader, name, in.Mode, syscall.O_EXCL)
	if st != fuse.OK {
		return st
	}
	fs.enter(&a, out)
	return status(f.Close(wait(cancel, &in.InHeader)))
}

func (fs *fileSystem) remove(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	dir, ok := fs.fh(h.NodeId)
	if !ok {
		return fuse.Status(syscall.ESTALE)
	}
	return status(fs.c.Remove(wait(cancel, h), dir, name))
}

// Unlink and Rmdir rely on the kernel for the type check: it has just looked the name up.
func (fs *fileSystem) Unlink(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return fs.remove(cancel, h, name)
}

func (fs *fileSystem) Rmdir(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return fs.remove(cancel, h, name)
}

func (fs *fileSystem) Rename(cancel <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	if in.Flags != 0 {
		return fuse.EINVAL // RENAME_NOREPLACE and RENAME_EXCHANGE do not exist in NFSv4.1
	}
	from, ok := fs.fh(in.NodeId)
	to, ok2 := fs.fh(in.Newdir)
	if !ok || !ok2 {
		return fuse.Status(syscall.ESTALE)
	}
	st := status(fs.c.Rename(wait(cancel, &in.InHeader), from, oldName, to, newName))
	if st == fuse.Status(syscall.EEXIST) { // NFS has one status for "not empty" and "other type"
		st = fuse.Status(syscall.ENOTEMPTY)
	}
	return st
}

func (fs *fileSystem) Link(cancel <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	dir, ok := fs.fh(in.NodeId)
	fh, ok2 := fs.fh(in.Oldnodeid)
	if !ok || !ok2 {
		return fuse.Status(syscall.ESTALE)
	}
	a, err := fs.c.Link(wait(cancel, &in.InHeader), fh, dir, name)
	if err != nil {
		return status(err)
	}
	fs.enter(&a, out)
	return fuse.OK
}

func (fs *fileSystem) Readlink(cancel <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	fh, ok := fs.fh(h.NodeId)
	if !ok {
		return nil, fuse.Status(syscall.ESTALE)
	}
	s, err := fs.c.Readlink(wait(cancel, h), fh)
	return []byte(s), status(err)
}

func (fs *fileSystem) StatFs(cancel <-chan struct{}, h *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	a, err := fs.c.Statfs(wait(cancel, h))
	if err != nil {
		return status(err)
	}
	const block = 4096
	out.Bsize, out.Frsize, out.NameLen = block, block, proto.MaxName
	out.Blocks, out.Bfree, out.Bavail = a.SpaceTotal/block, a.SpaceFree/block, a.SpaceAvail/block
	out.Files, out.Ffree = a.FilesTotal, a.FilesFree
	return fuse.OK
}

func (fs *fileSystem) create(cancel <-chan struct{}, h *fuse.InHeader, name string, mode, flags uint32) (*client.File, proto.Attr, fuse.Status) {
	dir, ok := fs.fh(h.NodeId)
	if !ok {
		return nil, proto.Attr{}, fuse.Status(syscall.ESTALE)
	}
	set := owned(mode, h.Owner)
	if flags&syscall.O_TRUNC != 0 && flags&syscall.O_EXCL == 0 {
		set.Mask.Set(proto.AttrSize)
	}
	var verf [8]byte
	rand.Read(verf[:])
	f, a, err := fs.c.Create(wait(cancel, h), dir, name, set, flags&syscall.O_EXCL != 0, verf)
	return f, a, status(err)
}
