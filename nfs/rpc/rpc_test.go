package rpc

import (
	"bytes"
	"errors"
	"testing"

	"appliance/nfs/xdr"
)

func TestRecordFragments(t *testing.T) {
	in := []byte{0, 0, 0, 2, 'a', 'b', 0x80, 0, 0, 1, 'c'}
	rec, err := ReadRecord(bytes.NewReader(in))
	if err != nil || string(rec) != "abc" {
		t.Fatalf("got %q, %v", rec, err)
	}
	if _, err := ReadRecord(bytes.NewReader([]byte{0xff, 0xff, 0xff, 0xff})); !errors.Is(err, ErrRecordTooBig) {
		t.Fatalf("got %v", err)
	}
}

func TestCallRoundTrip(t *testing.T) {
	var e xdr.Encoder
	EncodeCall(&e, 7, 1, Cred{UID: 5, GID: 6, Groups: []uint32{8, 9}}, "host")
	c, err := DecodeCall(xdr.NewDecoder(e.B))
	if err != nil || c.XID != 7 || c.Prog != Program || c.Cred.UID != 5 || len(c.Cred.Groups) != 2 {
		t.Fatalf("got %+v, %v", c, err)
	}
	e = xdr.Encoder{}
	EncodeReply(&e, 7, Success)
	if xid, err := DecodeReply(xdr.NewDecoder(e.B)); xid != 7 || err != nil {
		t.Fatalf("got %d, %v", xid, err)
	}
}

func TestHello(t *testing.T) {
	var b bytes.Buffer
	WriteHello(&b, "notes")
	b.WriteString("rest")
	if v, err := ReadHello(&b); v != "notes" || err != nil || b.String() != "rest" {
		t.Fatalf("got %q, %v, left %q", v, err, b.String())
	}
	WriteHelloReply(&b, errors.New("no such\nvolume"))
	b.Next(4)
	if err := ReadHelloReply(&b); !errors.Is(err, ErrRefused) || b.Len() != 0 {
		t.Fatalf("got %v", err)
	}
}

func FuzzDecodeCall(f *testing.F) {
	var e xdr.Encoder
	EncodeCall(&e, 1, 1, Cred{Groups: []uint32{1}}, "m")
	f.Add(e.B)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) { DecodeCall(xdr.NewDecoder(b)) })
}

func FuzzReadRecord(f *testing.F) {
	f.Add([]byte{0x80, 0, 0, 1, 'c'})
	f.Fuzz(func(t *testing.T, b []byte) {
		if rec, err := ReadRecord(bytes.NewReader(b)); err == nil && len(rec) > len(b) {
			t.Fatal("record longer than its input")
		}
	})
}
