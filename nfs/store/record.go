package store

import (
	"fmt"

	"appliance/nfs/proto"
	"appliance/nfs/xdr"
)

// Op says what a record does. Values are on disk: never renumber.
type Op uint32

// Operations of the log.
const (
	OpCreate     Op = 1  // Dir/Name becomes the new inode Ino
	OpRemove     Op = 2  // Dir/Name goes away
	OpRename     Op = 3  // Dir/Name becomes Dir2/Name2, replacing what was there
	OpLink       Op = 4  // Dir/Name becomes another name of Ino
	OpSetAttr    Op = 5  // attributes of Ino
	OpWrite      Op = 6  // Data at Off of Ino
	OpFree       Op = 7  // Ino, unlinked and closed, and its data go away
	OpClient     Op = 8  // Client may reclaim after a restart
	OpClientGone Op = 9  // Client may not reclaim any more
	OpForget     Op = 10 // retries of Origin.Session cannot come any more
)

// Origin names the request that caused a record, so that a retry of the request after a restart is
// recognised and not executed again. The zero Origin is none.
type Origin struct {
	Session   proto.SessionID
	Slot, Seq uint32
	Index     uint32 // position of the operation in its COMPOUND
}

// Record is one decided fact of a volume's log. Applying it needs no clock and no randomness.
type Record struct {
	LSN, Epoch uint64
	Op         Op
	Time       int64 // nanoseconds since the epoch
	Ino        Ino
	Dir, Dir2  Ino
	Name       string
	Name2      string
	Kind       uint32
	Set        proto.SetAttr
	Target     string
	Major      uint32
	Minor      uint32
	Verf       [8]byte // of an exclusive create
	Off        uint64
	Data       []byte
	Client     string
	Origin     Origin
}

// maxRecord bounds a record: one WRITE and its header.
const maxRecord = proto.MaxIO + 16<<10

// encodeHead appends everything but Data, which follows it in the log as raw bytes.
func (r *Record) encodeHead(e *xdr.Encoder) {
	e.U64(r.LSN)
	e.U64(r.Epoch)
	e.U32(uint32(r.Op))
	e.I64(r.Time)
	e.U64(uint64(r.Ino))
	switch r.Op {
	case OpWrite:
		e.U64(r.Off)
		e.Bool(r.Origin != Origin{})
		if r.Origin != (Origin{}) {
			r.encodeOrigin(e)
		}
	case OpFree:
	case OpClient, OpClientGone:
		e.String(r.Client)
	case OpForget:
		r.encodeOrigin(e)
	case OpSetAttr:
		r.encodeOrigin(e)
		r.encodeSet(e)
	default:
		r.encodeOrigin(e)
		e.U64(uint64(r.Dir))
		e.String(r.Name)
		e.U64(uint64(r.Dir2))
		e.String(r.Name2)
		if r.Op == OpCreate {
			e.U32(r.Kind)
			r.encodeSet(e)
			e.String(r.Target)
			e.U32(r.Major)
			e.U32(r.Minor)
			e.Fixed(r.Verf[:])
		}
	}
}

func (r *Record) encodeOrigin(e *xdr.Encoder) {
	e.Fixed(r.Origin.Session[:])
	e.U32(r.Origin.Slot)
	e.U32(r.Origin.Seq)
	e.U32(r.Origin.Index)
}

// encodeSet is not fattr4: records hold resolved times, so that applying needs no clock.
func (r *Record) encodeSet(e *xdr.Encoder) {
	for _, w := range r.Set.Mask {
		e.U32(w)
	}
	e.U64(r.Set.Size)
	e.U32(r.Set.Mode)
	e.U32(r.Set.UID)
	e.U32(r.Set.GID)
	e.I64(r.Set.Atime)
	e.I64(r.Set.Mtime)
}

// decodeRecord reads a record's body. Data shares memory with b.
func decodeRecord(b []byte) (*Record, error) {
	d := xdr.NewDecoder(b)
	r := &Record{LSN: d.U64(), Epoch: d.U64(), Op: Op(d.U32()), Time: d.I64(), Ino: Ino(d.U64())}
	switch r.Op {
	case OpWrite:
		r.Off = d.U64()
		if d.Bool() {
			r.decodeOrigin(d)
		}
		r.Data = d.Rest()
		return r, d.Err()
	case OpFree:
	case OpClient, OpClientGone:
		r.Client = d.String(proto.MaxOwner)
	case OpForget:
		r.decodeOrigin(d)
	case OpSetAttr:
		r.decodeOrigin(d)
		r.decodeSet(d)
	case OpCreate, OpRemove, OpRename, OpLink:
		r.decodeOrigin(d)
		r.Dir, r.Name = Ino(d.U64()), d.String(proto.MaxName)
		r.Dir2, r.Name2 = Ino(d.U64()), d.String(proto.MaxName)
		if r.Op == OpCreate {
			r.Kind = d.U32()
			r.decodeSet(d)
			r.Target, r.Major, r.Minor = d.String(proto.MaxTarget), d.U32(), d.U32()
			copy(r.Verf[:], d.Fixed(8))
		}
	default:
		return nil, fmt.Errorf("log record has unknown operation %d: written by a newer release?", r.Op)
	}
	return r, d.Err()
}

func (r *Record) decodeOrigin(d *xdr.Decoder) {
	r.Origin = Origin{proto.DecodeSessionID(d), d.U32(), d.U32(), d.U32()}
}

func (r *Record) decodeSet(d *xdr.Decoder) {
	r.Set.Mask = proto.Bitmap{d.U32(), d.U32(), d.U32()}
	r.Set.Size, r.Set.Mode, r.Set.UID, r.Set.GID = d.U64(), d.U32(), d.U32(), d.U32()
	r.Set.Atime, r.Set.Mtime = d.I64(), d.I64()
}
