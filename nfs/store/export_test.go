package store

import "appliance/nfs/xdr"

func encoded(r *Record) []byte {
	var e xdr.Encoder
	r.encodeHead(&e)
	return append(e.B, r.Data...)
}
