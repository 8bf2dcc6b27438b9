package store

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"appliance/nfs/xdr"
)

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

// descriptors is how many of the volume's data files and sums the process has open.
func descriptors(t testing.TB, v *Volume) (n int) {
	t.Helper()
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		p, _ := os.Readlink(fd)
		if strings.HasPrefix(p, v.files.dir+"/") || strings.HasPrefix(p, v.files.sumDir+"/") {
			n++
		}
	}
	return n
}
