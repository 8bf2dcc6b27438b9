package client

import (
	"appliance/nfs/proto"
	"appliance/nfs/rpc"
	"appliance/nfs/xdr"
)

// ops encodes one COMPOUND.
type ops struct {
	e     xdr.Encoder
	xid   uint32
	n     uint32
	count int // offset of the operation count
	seq   bool
	lost  bool // the file's locks are lost: do not send
}

// newOps starts a COMPOUND; s nil means one without SEQUENCE.
func (c *Client) newOps(s *slot, build func(*ops)) *ops {
	o := &ops{xid: c.xid.Add(1), seq: s != nil}
	rpc.StartRecord(&o.e)
	rpc.EncodeCall(&o.e, o.xid, proto.ProcCompound, rpc.Cred{}, "appliance")
	o.e.U32(0)
	o.e.U32(proto.MinorVersion1)
	o.count = o.e.Len()
	o.e.U32(0)
	if s != nil {
		o.op(proto.OpSequence)
		o.e.Fixed(c.session[:])
		o.e.U32(s.seq + 1)
		o.e.U32(s.no)
		o.e.U32(uint32(c.nslots - 1))
		o.e.Bool(true)
	}
	if build != nil {
		build(o)
	}
	o.e.PutU32(o.count, o.n)
	rpc.EndRecord(&o.e)
	return o
}

func (o *ops) op(n uint32) {
	o.e.U32(n)
	o.n++
}

func (o *ops) putfh(fh []byte) {
	if fh == nil {
		o.op(proto.OpPutrootfh)
		return
	}
	o.op(proto.OpPutfh)
	o.e.Opaque(fh)
}

func (o *ops) getattr(want proto.Bitmap) {
	o.op(proto.OpGetattr)
	want.Encode(&o.e)
}

// results decodes the reply to one COMPOUND, operation by operation.
type results struct {
	d *xdr.Decoder
}

// finish decodes the reply's header and SEQUENCE, then calls parse.
func (o *ops) finish(rep []byte, parse func(*results) error) error {
	d := xdr.NewDecoder(rep)
	if _, err := rpc.DecodeReply(d); err != nil {
		return err
	}
	st := proto.Status(d.U32())
	d.Opaque(proto.MaxTag)
	n := d.U32()
	if d.Err() != nil {
		return d.Err()
	}
	if n == 0 && st != proto.OK {
		return st
	}
	r := &results{d}
	if o.seq {
		if err := r.next(proto.OpSequence); err != nil {
			return err
		}
		d.Fixed(16 + 5*4)
	}
	if parse == nil {
		return orNil(st)
	}
	if err := parse(r); err != nil {
		return err
	}
	return d.Err()
}

// next reads an operation's number and status.
func (r *results) next(op uint32) error {
	got, st := r.d.U32(), proto.Status(r.d.U32())
	switch {
	case r.d.Err() != nil:
		return r.d.Err()
	case got != op && got != proto.OpIllegal:
		return proto.ErrServerFault
	}
	return orNil(st)
}

// putfh reads the result of putfh, whichever operation it became.
func (r *results) putfh() error {
	r.d.U32()
	return orNil(proto.Status(r.d.U32()))
}

func (r *results) attr() (proto.Attr, error) {
	if err := r.next(proto.OpGetattr); err != nil {
		return proto.Attr{}, err
	}
	a := proto.DecodeAttr(r.d)
	return a, r.d.Err()
}

func (r *results) changeInfo() {
	r.d.Bool()
	r.d.U64()
	r.d.U64()
}

func orNil(st proto.Status) error {
	if st == proto.OK {
		return nil
	}
	return st
}
