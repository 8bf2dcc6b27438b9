package server

import (
	"bytes"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"appliance/nfs/proto"
	"appliance/nfs/rpc"
	"appliance/nfs/xdr"
)

// wire speaks single COMPOUNDs to an export, to test what a well-behaved client never sends.
type wire struct {
	t    testing.TB
	x    *export
	sess proto.SessionID
	seq  uint32
	mu   sync.Mutex
}

// sink is a connection that keeps what is written.
type sink struct {
	net.Conn
	buf bytes.Buffer
}

func (s *sink) Write(b []byte) (int, error)      { return s.buf.Write(b) }
func (s *sink) Close() error                     { return nil }
func (s *sink) SetWriteDeadline(time.Time) error { return nil }

func newWire(t testing.TB, dir string) *wire {
	s, err := Open(dir, Options{Reserve: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if len(s.Volumes()) == 0 {
		if err := s.CreateVolume("v", VolumeOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	x, err := s.export("v")
	if err != nil {
		t.Fatal(err)
	}
	return &wire{t: t, x: x}
}

// record builds a COMPOUND without SEQUENCE.
func record(n int, ops func(e *xdr.Encoder)) []byte {
	var e xdr.Encoder
	rpc.EncodeCall(&e, 1, proto.ProcCompound, rpc.Cred{}, "test")
	e.U32(0)
	e.U32(1)
	e.U32(uint32(n))
	ops(&e)
	return e.B
}

// raw sends a record and returns the COMPOUND's status and the rest of the reply.
func (w *wire) raw(rec []byte) (proto.Status, *xdr.Decoder) {
	var out sink
	c := &conn{x: w.x, c: &out, peer: "test"}
	if err := c.handle(append([]byte(nil), rec...)); err != nil {
		return proto.ErrServerFault, nil
	}
	d := xdr.NewDecoder(out.buf.Bytes()[4:])
	rpc.DecodeReply(d)
	st := proto.Status(d.U32())
	d.Opaque(256)
	d.U32()
	return st, d
}

func (w *wire) connect(owner string) {
	w.t.Helper()
	st, d := w.raw(record(1, func(e *xdr.Encoder) {
		e.U32(proto.OpExchangeID)
		e.U64(7)
		e.String(owner)
		e.U32(0)
		e.U32(0)
		e.U32(0)
	}))
	d.U64()
	id, seq := d.U64(), d.U32()
	if st != proto.OK {
		w.t.Fatal(st)
	}
	st, d = w.raw(record(1, func(e *xdr.Encoder) {
		e.U32(proto.OpCreateSession)
		e.U64(id)
		e.U32(seq)
		e.U32(0)
		ch := proto.Channel{MaxRequest: 1 << 20, MaxResponse: 1 << 20, MaxCached: 4096, MaxOps: 64, MaxSlots: 4}
		ch.Encode(e)
		ch.Encode(e)
		e.U32(0)
		e.U32(1)
		e.U32(0)
	}))
	if st != proto.OK {
		w.t.Fatal(st)
	}
	d.U64()
	w.sess, w.seq = proto.DecodeSessionID(d), 0
}

// request builds a COMPOUND of the session with the given slot sequence number.
func (w *wire) request(seq uint32, n int, ops func(e *xdr.Encoder)) []byte {
	return record(n+1, func(e *xdr.Encoder) {
		e.U32(proto.OpSequence)
		e.Fixed(w.sess[:])
		e.U32(seq)
		e.U32(0)
		e.U32(0)
		e.Bool(true)
		ops(e)
	})
}

func (w *wire) call(n int, ops func(e *xdr.Encoder)) (proto.Status, *xdr.Decoder) {
	w.seq++
	return w.raw(w.request(w.seq, n, ops))
}

func mkdir(name string) func(*xdr.Encoder) {
	return func(e *xdr.Encoder) {
		e.U32(proto.OpPutrootfh)
		e.U32(proto.OpCreate)
		e.U32(proto.Dir)
		e.String(name)
		proto.SetAttr{Mask: proto.Bits(proto.AttrMode), Mode: 0o755}.Encode(e)
		e.U32(proto.OpGetfh)
	}
}

func rename(from, to string) func(*xdr.Encoder) {
	return func(e *xdr.Encoder) {
		e.U32(proto.OpPutrootfh)
		e.U32(proto.OpSavefh)
		e.U32(proto.OpRename)
		e.String(from)
		e.String(to)
	}
}

func TestRetryGetsTheSameReply(t *testing.T) {
	w := newWire(t, t.TempDir())
	w.connect("a")
	rec := w.request(1, 3, mkdir("d"))
	st, d := w.raw(rec)
	if st != proto.OK {
		t.Fatal(st)
	}
	again, d2 := w.raw(rec)
	if again != proto.OK || !bytes.Equal(d.Rest(), d2.Rest()) {
		t.Fatal("the retry was executed again")
	}
	if st, _ := w.raw(w.request(3, 3, mkdir("e"))); st != proto.ErrSeqMisordered {
		t.Fatal(st)
	}
	if st, _ := w.raw(w.request(2, 3, mkdir("d"))); st != proto.ErrExist {
		t.Fatal(st)
	}
}

// TestRetryAfterRestart loses the replies of executed requests in a restart of the server: the
// retries must not be executed a second time, and must not fail.
func TestRetryAfterRestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "volumes")
	w := newWire(t, dir)
	w.connect("a")
	w.call(3, mkdir("d"))
	moved := w.request(2, 3, rename("d", "e"))
	if st, _ := w.raw(moved); st != proto.OK {
		t.Fatal(st)
	}
	if err := w.x.close(); err != nil {
		t.Fatal(err)
	}
	w2 := newWire(t, dir)
	w2.sess = w.sess
	if st, _ := w2.raw(moved); st != proto.OK {
		t.Fatalf("the retried rename fails: %v", st)
	}
	if st, _ := w2.raw(w2.request(3, 3, rename("e", "f"))); st != proto.ErrBadSession {
		t.Fatalf("a new request in a session from before the restart: %v", st)
	}
	w2.connect("a")
	w2.call(1, func(e *xdr.Encoder) {
		e.U32(proto.OpReclaimComplete)
		e.Bool(false)
	})
	made := w2.request(2, 3, mkdir("d"))
	st, d := w2.raw(made)
	if st != proto.OK {
		t.Fatal(st)
	}
	first := append([]byte(nil), d.Rest()[len(d.Rest())-handleLen:]...)
	if err := w2.x.close(); err != nil {
		t.Fatal(err)
	}
	w3 := newWire(t, dir)
	st, d = w3.raw(made)
	if st != proto.OK || !bytes.Equal(first, d.Rest()[len(d.Rest())-handleLen:]) {
		t.Fatalf("the retried mkdir: %v, or another directory", st)
	}
}

func TestBadRequests(t *testing.T) {
	w := newWire(t, t.TempDir())
	w.connect("a")
	fh := func(b []byte) func(e *xdr.Encoder) {
		return func(e *xdr.Encoder) {
			e.U32(proto.OpPutfh)
			e.Opaque(b)
		}
	}
	name := func(s string) func(e *xdr.Encoder) {
		return func(e *xdr.Encoder) {
			e.U32(proto.OpPutrootfh)
			e.U32(proto.OpLookup)
			e.String(s)
		}
	}
	op := func(ops ...uint32) func(e *xdr.Encoder) {
		return func(e *xdr.Encoder) {
			for _, o := range ops {
				e.U32(o)
			}
		}
	}
	lock := func(off, length uint64) func(e *xdr.Encoder) {
		return func(e *xdr.Encoder) {
			e.U32(proto.OpPutrootfh)
			e.U32(proto.OpLockt)
			e.U32(proto.WriteLock)
			e.U64(off)
			e.U64(length)
			e.U64(1)
			e.String("o")
		}
	}
	tests := []struct {
		name string
		n    int
		ops  func(e *xdr.Encoder)
		want proto.Status
	}{
		{"illegal operation", 1, op(9999), proto.ErrOpIllegal},
		{"known but optional operation", 1, op(49), proto.ErrNotSupp},
		{"no file handle", 1, op(proto.OpGetfh), proto.ErrNoFileHandle},
		{"second sequence", 1, op(proto.OpSequence), proto.ErrSequencePos},
		{"short handle", 1, fh([]byte("x")), proto.ErrBadHandle},
		{"another volume's handle", 1, fh(make([]byte, handleLen)), proto.ErrStale},
		{"empty name", 2, name(""), proto.ErrInval},
		{"dot", 2, name("."), proto.ErrBadName},
		{"dot dot", 2, name(".."), proto.ErrBadName},
		{"slash", 2, name("a/b"), proto.ErrBadChar},
		{"not UTF-8", 2, name("\xff"), proto.ErrInval},
		{"long name", 2, name(string(bytes.Repeat([]byte("n"), 256))), proto.ErrNameTooLong},
		{"lock of nothing", 2, lock(5, 0), proto.ErrInval},
		{"lock beyond the end", 2, lock(^uint64(0), 2), proto.ErrInval},
		{"no saved handle", 1, op(proto.OpRestorefh), proto.ErrRestoreFH},
		{"arguments missing", 1, op(proto.OpPutfh), proto.ErrBadXDR},
		{"above the root", 2, op(proto.OpPutrootfh, proto.OpLookupp), proto.ErrNoEnt},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if st, _ := w.call(tt.n, tt.ops); st != tt.want {
				t.Fatalf("got %v, want %v", st, tt.want)
			}
		})
	}
	if st, _ := w.raw(record(1, op(proto.OpPutrootfh))); st != proto.ErrOpNotInSession {
		t.Fatal(st)
	}
}

// FuzzCompound feeds arbitrary operations to a live session.
func FuzzCompound(f *testing.F) {
	for n, ops := range map[int]func(*xdr.Encoder){3: mkdir("d"), 2: func(e *xdr.Encoder) {
		e.U32(proto.OpPutrootfh)
		e.U32(proto.OpGetattr)
		proto.FileAttrs.Encode(e)
	}, 4: func(e *xdr.Encoder) {
		e.U32(proto.OpPutrootfh)
		e.U32(proto.OpOpen)
		for _, v := range []uint32{0, 3, 0, 0, 1, 1, 0x6f000000, 1, 0} {
			e.U32(v)
		}
		proto.SetAttr{}.Encode(e)
		e.U32(0)
		e.String("f")
		e.U32(proto.OpWrite)
		proto.Current.Encode(e)
		e.U64(0)
		e.U32(0)
		e.Opaque([]byte("data"))
		e.U32(proto.OpRead)
		proto.Current.Encode(e)
		e.U64(0)
		e.U32(100)
	}} {
		var e xdr.Encoder
		ops(&e)
		f.Add(uint8(n), e.B)
	}
	w := newWire(f, f.TempDir())
	w.connect("fuzz")
	f.Fuzz(func(t *testing.T, n uint8, ops []byte) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.t = t
		st, _ := w.call(int(n)%proto.MaxOps, func(e *xdr.Encoder) { e.B = append(e.B, ops...) })
		w.x.mu.Lock()
		alive := w.x.sessions[w.sess] != nil
		w.x.mu.Unlock()
		switch {
		case !alive: // it has destroyed its session
			w.connect("fuzz")
		case st == proto.ErrSeqMisordered: // the request before was not even a COMPOUND
			w.seq -= 2
		}
		if err := w.x.vol.Err(); err != nil {
			t.Fatalf("a request stopped the volume: %v", err)
		}
	})
}
