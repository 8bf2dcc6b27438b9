package store

import "appliance/nfs/xdr"

func encoded(r *Record) []byte {
	var e xdr.Encoder
	r.encodeHead(&e)
	return append(e.B, r.Data...)
}

func (fs *files) isClosing(f *file, block uint64) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return f.closing.has(block)
}
