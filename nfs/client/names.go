package client

import (
	"appliance/nfs/proto"
)

// Getattr reads a file's attributes; a nil handle is the root.
func (c *Client) Getattr(i Interrupt, fh []byte) (a proto.Attr, err error) {
	return c.attrs(i, fh, proto.FileAttrs)
}

// Statfs reads the volume's space.
func (c *Client) Statfs(i Interrupt) (proto.Attr, error) { return c.attrs(i, nil, proto.FSAttrs) }

func (c *Client) attrs(i Interrupt, fh []byte, want proto.Bitmap) (a proto.Attr, err error) {
	err = c.do(i, request{func(o *ops) {
		o.putfh(fh)
		o.getattr(want)
	}, func(r *results) (err error) {
		if err = r.putfh(); err == nil {
			a, err = r.attr()
		}
		return err
	}})
	return a, err
}

// Setattr changes attributes. f is the open file when there is one.
func (c *Client) Setattr(i Interrupt, fh []byte, f *File, set proto.SetAttr) (a proto.Attr, err error) {
	if f != nil && set.Mask.Has(proto.AttrSize) {
		if err := f.Commit(i); err != nil { // a resend after the cut would bring data back
			return a, err
		}
	}
	err = c.do(i, request{func(o *ops) {
		o.putfh(fh)
		o.op(proto.OpSetattr)
		sid := proto.Anonymous
		if f != nil {
			if s, err := f.state(); err == nil {
				sid = s.sid
			}
		}
		sid.Encode(&o.e)
		set.Encode(&o.e)
		o.getattr(proto.FileAttrs)
	}, func(r *results) (err error) {
		if err = r.putfh(); err != nil {
			return err
		}
		if err = r.next(proto.OpSetattr); err != nil {
			return err
		}
		proto.DecodeBitmap(r.d)
		a, err = r.attr()
		return err
	}})
	return a, err
}

// Lookup finds a name.
func (c *Client) Lookup(i Interrupt, dir []byte, name string) (a proto.Attr, err error) {
	err = c.do(i, request{func(o *ops) {
		o.putfh(dir)
		o.op(proto.OpLookup)
		o.e.String(name)
		o.getattr(proto.FileAttrs)
	}, func(r *results) (err error) {
		if err = r.putfh(); err == nil {
			err = r.next(proto.OpLookup)
		}
		if err == nil {
			a, err = r.attr()
		}
		return err
	}})
	return a, err
}

// Node is what Make makes: a directory, symbolic link, device, socket or FIFO.
type Node struct {
	Kind         uint32
	Target       string
	Major, Minor uint32
}

// Make creates anything but a regular file.
func (c *Client) Make(i Interrupt, dir []byte, name string, n Node, set proto.SetAttr) (a proto.Attr, err error) {
	err = c.do(i, request{func(o *ops) {
		o.putfh(dir)
		o.op(proto.OpCreate)
		o.e.U32(n.Kind)
		switch n.Kind {
		case proto.Lnk:
			o.e.String(n.Target)
		case proto.Blk, proto.Chr:
			o.e.U32(n.Major)
			o.e.U32(n.Minor)
		}
		o.e.String(name)
		set.Encode(&o.e)
		o.getattr(proto.FileAttrs)
	}, func(r *results) (err error) {
		if err = r.putfh(); err == nil {
			err = r.next(proto.OpCreate)
		}
		if err == nil {
			r.changeInfo()
			proto.DecodeBitmap(r.d)
			a, err = r.attr()
		}
		return err
	}})
	return a, err
}

// Remove takes a name away: of a file or of an empty directory.
func (c *Client) Remove(i Interrupt, dir []byte, name string) error {
	return c.do(i, request{func(o *ops) {
		o.putfh(dir)
		o.op(proto.OpRemove)
		o.e.String(name)
	}, func(r *results) error {
		if err := r.putfh(); err != nil {
			return err
		}
		return r.next(proto.OpRemove)
	}})
}

// Rename moves a name, replacing what is at the new one.
func (c *Client) Rename(i Interrupt, dir []byte, name string, dir2 []byte, name2 string) error {
	return c.do(i, request{func(o *ops) {
		o.putfh(dir)
		o.op(proto.OpSavefh)
		o.putfh(dir2)
		o.op(proto.OpRename)
		o.e.String(name)
		o.e.String(name2)
	}, func(r *results) error { return twoHandles(r, proto.OpRename) }})
}

func twoHandles(r *results, op uint32) error {
	if err := r.putfh(); err != nil {
		return err
	}
	if err := r.next(proto.OpSavefh); err != nil {
		return err
	}
	if err := r.putfh(); err != nil {
		return err
	}
	return r.next(op)
}

// Link gives a file another name and returns its attributes.
func (c *Client) Link(i Interrupt, fh, dir []byte, name string) (a proto.Attr, err error) {
	err = c.do(i, request{func(o *ops) {
		o.putfh(fh)
		o.op(proto.OpSavefh)
		o.putfh(dir)
		o.op(proto.OpLink)
		o.e.String(name)
		o.op(proto.OpRestorefh)
		o.getattr(proto.FileAttrs)
	}, func(r *results) (err error) {
		if err = twoHandles(r, proto.OpLink); err != nil {
			return err
		}
		r.changeInfo()
		if err = r.next(proto.OpRestorefh); err == nil {
			a, err = r.attr()
		}
		return err
	}})
	return a, err
}

// Readlink reads a symbolic link.
func (c *Client) Readlink(i Interrupt, fh []byte) (target string, err error) {
	err = c.do(i, request{func(o *ops) {
		o.putfh(fh)
		o.op(proto.OpReadlink)
	}, func(r *results) error {
		if err := r.putfh(); err != nil {
			return err
		}
		if err := r.next(proto.OpReadlink); err != nil {
			return err
		}
		target = r.d.String(proto.MaxTarget)
		return r.d.Err()
	}})
	return target, err
}

// Entry is one name of a directory listing.
type Entry struct {
	Cookie uint64
	Name   string
	Attr   proto.Attr // type and fileid only
}

// readdirBytes is how much of a directory is asked for at a time.
const readdirBytes = 64 << 10

// Readdir lists entries behind cookie (0: from the start); end says that there are no more.
func (c *Client) Readdir(i Interrupt, dir []byte, cookie uint64) (entries []Entry, end bool, err error) {
	err = c.do(i, request{func(o *ops) {
		o.putfh(dir)
		o.op(proto.OpReaddir)
		o.e.U64(cookie)
		o.e.U64(0)
		o.e.U32(readdirBytes)
		o.e.U32(readdirBytes)
		proto.Bits(proto.AttrType, proto.AttrFileid).Encode(&o.e)
	}, func(r *results) error {
		if err := r.putfh(); err != nil {
			return err
		}
		if err := r.next(proto.OpReaddir); err != nil {
			return err
		}
		r.d.U64()
		entries = nil
		for r.d.Bool() && r.d.Err() == nil {
			entries = append(entries, Entry{r.d.U64(), r.d.String(proto.MaxName), proto.DecodeAttr(r.d)})
		}
		end = r.d.Bool()
		return r.d.Err()
	}})
	return entries, end, err
}
