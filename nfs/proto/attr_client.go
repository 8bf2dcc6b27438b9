package proto

import "appliance/nfs/xdr"

// Attr is what our client reads of a file. Times are nanoseconds since the epoch.
type Attr struct {
	Type                   uint32
	Change, Size, Fileid   uint64
	FH                     []byte
	Mode, Nlink, UID, GID  uint32
	Major, Minor           uint32
	Used                   uint64
	Atime, Mtime, Ctime    int64
	FilesAvail, FilesTotal uint64
	SpaceAvail, SpaceTotal uint64
	SpaceFree, FilesFree   uint64
	MaxRead, MaxWrite      uint64
	Lease                  uint32
}

// FileAttrs are the attributes our client asks for of every file.
var FileAttrs = Bits(AttrType, AttrChange, AttrSize, AttrFH, AttrFileid, AttrMode, AttrNumlinks,
	AttrOwner, AttrGroup, AttrRawdev, AttrSpaceUsed, AttrAtime, AttrCtime, AttrMtime)

// FSAttrs are the attributes our client asks for statfs.
var FSAttrs = Bits(AttrFilesAvail, AttrFilesFree, AttrFilesTotal, AttrSpaceAvail, AttrSpaceFree, AttrSpaceTotal)

// DecodeAttr reads a fattr4 holding attributes of FileAttrs, FSAttrs, lease and transfer limits.
func DecodeAttr(d *xdr.Decoder) (a Attr) {
	m, unknown := DecodeBitmap(d)
	b := xdr.NewDecoder(d.Opaque(MaxAttrs))
	known := FileAttrs
	for _, n := range []int{AttrFilesAvail, AttrFilesFree, AttrFilesTotal, AttrSpaceAvail, AttrSpaceFree,
		AttrSpaceTotal, AttrLease, AttrMaxRead, AttrMaxWrite} {
		known.Set(n)
	}
	if unknown || !m.Not(known).Empty() {
		d.Fail(ErrAttrNotSupp)
		return a
	}
	for n := 0; n < 96; n++ {
		if m.Has(n) {
			a.decodeOne(b, n)
		}
	}
	if b.Err() != nil {
		d.Fail(b.Err())
	}
	return a
}

func (a *Attr) decodeOne(b *xdr.Decoder, n int) {
	switch n {
	case AttrType:
		a.Type = b.U32()
	case AttrChange:
		a.Change = b.U64()
	case AttrSize:
		a.Size = b.U64()
	case AttrLease:
		a.Lease = b.U32()
	case AttrFH:
		a.FH = append([]byte(nil), b.Opaque(MaxFH)...)
	case AttrFileid:
		a.Fileid = b.U64()
	case AttrFilesAvail:
		a.FilesAvail = b.U64()
	case AttrFilesFree:
		a.FilesFree = b.U64()
	case AttrFilesTotal:
		a.FilesTotal = b.U64()
	case AttrMaxRead:
		a.MaxRead = b.U64()
	case AttrMaxWrite:
		a.MaxWrite = b.U64()
	case AttrMode:
		a.Mode = b.U32()
	case AttrNumlinks:
		a.Nlink = b.U32()
	case AttrOwner:
		a.UID = decodeClientID(b)
	case AttrGroup:
		a.GID = decodeClientID(b)
	case AttrRawdev:
		a.Major, a.Minor = b.U32(), b.U32()
	case AttrSpaceAvail:
		a.SpaceAvail = b.U64()
	case AttrSpaceFree:
		a.SpaceFree = b.U64()
	case AttrSpaceTotal:
		a.SpaceTotal = b.U64()
	case AttrSpaceUsed:
		a.Used = b.U64()
	case AttrAtime:
		a.Atime = DecodeTime(b)
	case AttrCtime:
		a.Ctime = DecodeTime(b)
	case AttrMtime:
		a.Mtime = DecodeTime(b)
	}
}

// nobody stands for an owner string that is not a number.
const nobody = 65534

func decodeClientID(b *xdr.Decoder) uint32 {
	id, st := DecodeID(b)
	if st != OK {
		return nobody
	}
	return id
}
