package command

import (
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"
	"unicode/utf8"

	"appliance/node/model"
)

// The binary form of what users write most. JSON stays readable for ever: old logs have it, and commands
// without a binary form keep it. A form is never changed: another one gets another number.
//
//	version 2 | kind (2, big endian) | body
//
// Texts stand behind their length, numbers are varints. Texts that are no UTF-8 are not written so: JSON
// replaces what is invalid, and state must be the same before and after it went through a snapshot.
const (
	codecBinary = 2
	levelBinary = 2 // the protocol level that knows it
)

// How the command inside Audited is encoded.
const (
	innerJSON   = 0
	innerBinary = 1
)

// binaryForm is implemented by commands that have a binary form.
type binaryForm interface {
	Command
	// appendBinary reports false if this one must be written as JSON.
	appendBinary(b []byte) ([]byte, bool)
	readBinary(r *reader)
}

// EncodeFor is Encode for a cluster of a protocol level.
func EncodeFor(c Command, level int) ([]byte, error) {
	form, ok := c.(binaryForm)
	if level < levelBinary || !ok {
		return Encode(c)
	}
	out, ok := form.appendBinary(binary.BigEndian.AppendUint16(append(make([]byte, 0, 320), codecBinary), uint16(c.kind())))
	if !ok {
		return Encode(c)
	}
	return out, fits(c, len(out)-3)
}

// decodeBinary reads what EncodeFor has written.
func decodeBinary(b []byte) (Command, error) {
	k := kind(binary.BigEndian.Uint16(b[1:3]))
	typ := types[k]
	if typ == nil {
		return nil, &UnknownError{Version: b[0], Kind: uint16(k)}
	}
	form, ok := reflect.New(typ).Interface().(binaryForm)
	if !ok {
		return nil, &UnknownError{Version: b[0], Kind: uint16(k)}
	}
	r := reader{rest: b[3:]}
	form.readBinary(&r)
	if err := r.end(); err != nil {
		return nil, fmt.Errorf("log entry of kind %d: %w", k, err)
	}
	return form, nil
}

func (c *Audited) appendBinary(b []byte) ([]byte, bool) {
	_, nested := c.Inner.(*Audited)
	if c.Inner == nil || nested {
		return b, false
	}
	valid := true
	for _, s := range []string{c.Actor.Who, c.Actor.From, c.Actor.Node, c.Actor.Via} {
		b, valid = appendText(b, s), valid && utf8.ValidString(s)
	}
	b, ok := appendTime(b, c.At)
	if !valid || !ok {
		return b, false
	}
	b = binary.BigEndian.AppendUint16(b, uint16(c.Inner.kind()))
	if form, ok := c.Inner.(binaryForm); ok {
		if out, ok := form.appendBinary(append(b, innerBinary)); ok {
			return out, true
		}
	}
	raw, err := Encode(c.Inner)
	if err != nil {
		return b, false // Encode says why
	}
	return append(append(b, innerJSON), raw[3:]...), true
}

func (c *Audited) readBinary(r *reader) {
	for _, s := range []*string{&c.Actor.Who, &c.Actor.From, &c.Actor.Node, &c.Actor.Via} {
		*s = r.text()
	}
	c.At = r.time()
	head := r.take(3)
	if r.err != nil {
		return
	}
	k := kind(binary.BigEndian.Uint16(head))
	typ := types[k]
	if typ == nil || head[2] > innerBinary {
		r.err = &UnknownError{Version: codecBinary, Kind: uint16(k)}
		return
	}
	inner := reflect.New(typ).Interface().(Command)
	form, ok := inner.(binaryForm)
	_, nested := inner.(*Audited)
	switch {
	case nested:
		r.err = errForm
	case head[2] == innerJSON:
		r.err = readStrict(r.take(len(r.rest)), k, inner)
	case !ok:
		r.err = &UnknownError{Version: codecBinary, Kind: uint16(k)}
	default:
		form.readBinary(r)
	}
	c.Inner = inner
}

// verbs are numbered from 1 in the binary form; 0 stands before the text of any other.
var verbs = []string{"set", "cas", "lock", "unlock", "get", "get-or-empty", "get-tree", "check-index",
	"check-session", "check-not-exists", "delete", "delete-tree", "delete-cas"}

func (c *KVTxn) appendBinary(b []byte) ([]byte, bool) {
	b, ok := appendTime(b, c.At)
	b = binary.AppendUvarint(b, uint64(len(c.Ops)))
	for i := range c.Ops {
		op := &c.Ops[i]
		n := slices.Index(verbs, op.Verb) + 1
		if b = append(b, byte(n)); n == 0 {
			b = appendText(b, op.Verb)
		}
		b = appendText(appendText(b, op.Key), op.Value)
		b = binary.AppendUvarint(binary.AppendUvarint(b, op.Flags), op.Index)
		b = appendText(b, op.Session)
		ok = ok && utf8.ValidString(op.Verb) && utf8.ValidString(op.Key) && utf8.ValidString(op.Session)
	}
	return b, ok
}

func (c *KVTxn) readBinary(r *reader) {
	c.At = r.time()
	n := r.count()
	if n > len(r.rest)/6 { // an operation takes six bytes or more
		r.fail()
	}
	if r.err != nil || n == 0 {
		return
	}
	c.Ops = make([]KVOp, n)
	for i := range c.Ops {
		op := &c.Ops[i]
		switch v := r.take(1); {
		case r.err != nil:
			return
		case v[0] == 0:
			op.Verb = r.text()
		case int(v[0]) > len(verbs):
			r.err = &UnknownError{Version: codecBinary, Kind: uint16(c.kind())}
			return
		default:
			op.Verb = verbs[v[0]-1]
		}
		op.Key, op.Value = r.text(), r.bytes()
		op.Flags, op.Index = r.number(), r.number()
		op.Session = r.text()
	}
}

func appendText[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// The times that JSON can hold, in seconds.
var (
	minTime = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	maxTime = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC).Unix()
)

// appendTime writes the instant; the zone, which means nothing here, becomes UTC.
func appendTime(b []byte, t time.Time) ([]byte, bool) {
	b = binary.AppendVarint(b, t.Unix())
	return binary.AppendUvarint(b, uint64(t.Nanosecond())), t.Unix() >= minTime && t.Unix() <= maxTime
}

var errForm = errors.New("it is damaged or was made by no version of this program")

// reader takes values from the front of rest. After an error all are zero.
type reader struct {
	rest []byte
	err  error
}

func (r *reader) fail() {
	r.rest = nil
	if r.err == nil {
		r.err = errForm
	}
}

func (r *reader) end() error {
	if r.err == nil && len(r.rest) > 0 {
		r.fail()
	}
	return r.err
}

func (r *reader) number() uint64 {
	v, k := binary.Uvarint(r.rest)
	if k <= 0 {
		r.fail()
		return 0
	}
	r.rest = r.rest[k:]
	return v
}

// count is a number of things that take a byte or more each.
func (r *reader) count() int {
	n := r.number()
	if n > uint64(len(r.rest)) {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *reader) take(n int) []byte {
	if r.err != nil || n > len(r.rest) {
		r.fail()
		return nil
	}
	out := r.rest[:n]
	r.rest = r.rest[n:]
	return out
}

func (r *reader) text() string {
	raw := r.take(r.count())
	if !utf8.Valid(raw) {
		r.fail()
		return ""
	}
	return string(raw)
}

// bytes returns a copy: what is read lives longer than the entry. nil if there are none, as from JSON.
func (r *reader) bytes() []byte { return append([]byte(nil), r.take(r.count())...) }

func (r *reader) time() time.Time {
	sec, k := binary.Varint(r.rest)
	if k <= 0 {
		r.fail()
		return time.Time{}
	}
	r.rest = r.rest[k:]
	ns := r.number()
	if r.err == nil && (sec < minTime || sec > maxTime || ns >= uint64(time.Second)) {
		r.fail()
	}
	if r.err != nil {
		return time.Time{}
	}
	return time.Unix(sec, int64(ns)).UTC()
}

// fits is an error for a body that is too large for the log.
func fits(c Command, size int) error {
	limit := MaxSize
	if _, ok := c.(*Audited); ok {
		limit += maxEnvelope // what fits by itself also fits on somebody's behalf
	}
	if size <= limit {
		return nil
	}
	return model.Errorf(model.CodeExhausted, "a change of %d bytes does not fit into the log", size).
		Because("one entry may have %d bytes", MaxSize).Try("split it into smaller ones")
}
