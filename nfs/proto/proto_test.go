package proto

import (
	"syscall"
	"testing"

	"appliance/nfs/xdr"

	"pgregory.net/rapid"
)

func TestTimeRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ns := rapid.Int64Range(-1<<61, 1<<62).Draw(t, "ns")
		var e xdr.Encoder
		EncodeTime(&e, ns)
		if got := DecodeTime(xdr.NewDecoder(e.B)); got != ns {
			t.Fatalf("got %d, want %d", got, ns)
		}
	})
}

func TestSetAttrRoundTrip(t *testing.T) {
	a := SetAttr{Mask: Settable, Size: 9, Mode: 0640, UID: 1, GID: 2, AtimeNow: true, Mtime: -5}
	var e xdr.Encoder
	a.Encode(&e)
	got, st := DecodeSetAttr(xdr.NewDecoder(e.B))
	if st != OK || got != a {
		t.Fatalf("got %+v, %v", got, st)
	}
}

func TestErrnoRoundTrip(t *testing.T) {
	for e := range fromErrno {
		if got := FromErrno(e).Errno(); got != e {
			t.Errorf("%v comes back as %v", e, got)
		}
	}
	if FromErrno(syscall.ENOTTY) != ErrServerFault {
		t.Error("an unknown errno must be a server fault")
	}
}

func FuzzDecodeAttr(f *testing.F) {
	var e xdr.Encoder
	SetAttr{Mask: Settable}.Encode(&e)
	f.Add(e.B)
	f.Fuzz(func(t *testing.T, b []byte) {
		DecodeSetAttr(xdr.NewDecoder(b))
		DecodeAttr(xdr.NewDecoder(b))
	})
}
