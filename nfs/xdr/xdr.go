// Package xdr encodes and decodes External Data Representation (RFC 4506) over byte slices.
//
// The decoder never allocates: variable-length values are sub-slices of its input, and every
// length is checked against both a caller's limit and the bytes that are really there.
package xdr

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrShort says that the input ended inside a value, or that a length exceeded its limit.
var ErrShort = errors.New("xdr: value longer than its input or its limit")

// Encoder appends values to B. The zero value is ready. Not safe for concurrent use.
type Encoder struct{ B []byte }

// U32 appends an unsigned 32-bit integer.
func (e *Encoder) U32(v uint32) { e.B = binary.BigEndian.AppendUint32(e.B, v) }

// U64 appends an unsigned 64-bit integer.
func (e *Encoder) U64(v uint64) { e.B = binary.BigEndian.AppendUint64(e.B, v) }

// I64 appends a signed 64-bit integer.
func (e *Encoder) I64(v int64) { e.U64(uint64(v)) }

// Bool appends a boolean as 0 or 1.
func (e *Encoder) Bool(v bool) {
	if v {
		e.U32(1)
	} else {
		e.U32(0)
	}
}

// Fixed appends an opaque of fixed length, padded to four bytes.
func (e *Encoder) Fixed(b []byte) {
	e.B = append(e.B, b...)
	e.pad(len(b))
}

// Opaque appends a variable-length opaque.
func (e *Encoder) Opaque(b []byte) {
	e.U32(uint32(len(b)))
	e.Fixed(b)
}

// String appends a string as a variable-length opaque.
func (e *Encoder) String(s string) {
	e.U32(uint32(len(s)))
	e.B = append(e.B, s...)
	e.pad(len(s))
}

func (e *Encoder) pad(n int) {
	for ; n%4 != 0; n++ {
		e.B = append(e.B, 0)
	}
}

// Len is the number of bytes encoded.
func (e *Encoder) Len() int { return len(e.B) }

// PutU32 overwrites the 32-bit value at byte offset off, for counts known only afterwards.
func (e *Encoder) PutU32(off int, v uint32) { binary.BigEndian.PutUint32(e.B[off:], v) }

// Decoder reads values from a byte slice. The first error sticks; later reads return zero values.
type Decoder struct {
	b   []byte
	err error
}

// NewDecoder reads from b, which must not change while values decoded from it are in use.
func NewDecoder(b []byte) *Decoder { return &Decoder{b: b} }

// Err is the first error, or nil.
func (d *Decoder) Err() error { return d.err }

// Len is the number of bytes not yet read.
func (d *Decoder) Len() int { return len(d.b) }

// Rest returns the bytes not yet read.
func (d *Decoder) Rest() []byte { return d.b }

// Fail makes err stick unless there already is one.
func (d *Decoder) Fail(err error) {
	if d.err == nil {
		d.err = err
	}
}

func (d *Decoder) take(n int) []byte {
	if d.err != nil {
		return nil
	}
	if n < 0 || n > len(d.b) {
		d.err = ErrShort
		return nil
	}
	b := d.b[:n:n]
	d.b = d.b[n:]
	return b
}

// U32 reads an unsigned 32-bit integer.
func (d *Decoder) U32() uint32 {
	b := d.take(4)
	if b == nil {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

// U64 reads an unsigned 64-bit integer.
func (d *Decoder) U64() uint64 {
	b := d.take(8)
	if b == nil {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

// I64 reads a signed 64-bit integer.
func (d *Decoder) I64() int64 { return int64(d.U64()) }

// Bool reads a boolean; values other than 0 and 1 are errors (RFC 4506 section 4.4).
func (d *Decoder) Bool() bool {
	v := d.U32()
	if v > 1 {
		d.Fail(fmt.Errorf("xdr: boolean is %d", v))
	}
	return v == 1
}

// Fixed reads an opaque of n bytes; the result shares memory with the input.
func (d *Decoder) Fixed(n int) []byte {
	b := d.take(n)
	d.take((4 - n%4) % 4)
	if d.err != nil {
		return nil
	}
	return b
}

// Opaque reads a variable-length opaque of at most max bytes; it shares memory with the input.
func (d *Decoder) Opaque(max int) []byte {
	n := d.U32()
	if d.err == nil && uint64(n) > uint64(max) {
		d.err = ErrShort
	}
	if d.err != nil {
		return nil
	}
	return d.Fixed(int(n))
}

// String reads a string of at most max bytes.
func (d *Decoder) String(max int) string { return string(d.Opaque(max)) }

// Count reads an array length of at most max elements of at least size bytes each.
func (d *Decoder) Count(max, size int) int {
	n := d.U32()
	if d.err == nil && (uint64(n) > uint64(max) || uint64(n)*uint64(size) > uint64(len(d.b))) {
		d.err = ErrShort
	}
	if d.err != nil {
		return 0
	}
	return int(n)
}
