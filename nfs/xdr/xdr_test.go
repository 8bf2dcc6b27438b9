package xdr

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		u, w, i := rapid.Uint32().Draw(t, "u"), rapid.Uint64().Draw(t, "w"), rapid.Int64().Draw(t, "i")
		o, s, b := rapid.SliceOfN(rapid.Byte(), 0, 99).Draw(t, "o"), rapid.String().Draw(t, "s"), rapid.Bool().Draw(t, "b")
		var e Encoder
		e.U32(u)
		e.Opaque(o)
		e.Bool(b)
		e.String(s)
		e.U64(w)
		e.I64(i)
		if e.Len()%4 != 0 {
			t.Fatalf("length %d is not a multiple of four", e.Len())
		}
		d := NewDecoder(e.B)
		if d.U32() != u || !bytes.Equal(d.Opaque(99), o) || d.Bool() != b || d.String(1<<20) != s || d.U64() != w || d.I64() != i {
			t.Fatal("decoded values differ")
		}
		if d.Err() != nil || d.Len() != 0 {
			t.Fatalf("err %v, %d bytes left", d.Err(), d.Len())
		}
	})
}

func TestDecoderLimits(t *testing.T) {
	tests := []struct {
		name string
		in   []byte
		read func(*Decoder)
	}{
		{"short integer", []byte{0, 0, 1}, func(d *Decoder) { d.U32() }},
		{"length beyond input", []byte{0xff, 0xff, 0xff, 0xff, 1}, func(d *Decoder) { d.Opaque(1 << 31) }},
		{"length beyond limit", []byte{0, 0, 0, 4, 1, 2, 3, 4}, func(d *Decoder) { d.Opaque(3) }},
		{"missing padding", []byte{0, 0, 0, 1, 1}, func(d *Decoder) { d.Opaque(8) }},
		{"array beyond input", []byte{0, 0, 1, 0}, func(d *Decoder) { d.Count(1<<30, 4) }},
		{"boolean of two", []byte{0, 0, 0, 2}, func(d *Decoder) { d.Bool() }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := NewDecoder(tt.in)
			tt.read(d)
			if d.Err() == nil {
				t.Fatal("no error")
			}
		})
	}
}
