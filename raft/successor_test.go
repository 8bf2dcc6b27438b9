package raft

import (
	"context"
	"net"
	"testing"
)

func TestOnlyARefusalTellsThatALeaderIsGone(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	n := &Node{conf: Config{Dial: func(ctx context.Context, addr string) (net.Conn, error) {
		if addr == "silent" {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	}}}
	if n.gone(t.Context(), addr) {
		t.Error("a process that listens was taken for gone")
	}
	if n.gone(t.Context(), "silent") {
		t.Error("a machine that does not answer was taken for a process that is gone")
	}
	ln.Close()
	if !n.gone(t.Context(), addr) {
		t.Error("a closed port was not noticed")
	}
}

func TestABrokenConnectionIsNoticed(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	broken := make(chan struct{}, 1)
	s := stream{Listener: ln, broken: broken}
	out, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	in, err := s.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if _, err := out.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if n, err := in.Read(make([]byte, 8)); n != 1 || err != nil || len(broken) != 0 {
		t.Fatalf("read %d, %v; broken: %d", n, err, len(broken))
	}
	out.Close()
	for range 2 { // the second finds the channel full and must not wait
		if _, err := in.Read(make([]byte, 8)); err == nil {
			t.Fatal("no end")
		}
	}
	if len(broken) != 1 {
		t.Error("it was not told")
	}
}

// Of two voters exactly one stands first: who has more of the log, since the other is refused, then by id.
func TestWhoStandsFirst(t *testing.T) {
	at := func(id string, term, last uint64) statusReply {
		return statusReply{id, Stats{LastTerm: term, Last: last}}
	}
	for name, pair := range map[string][2]statusReply{ // the first stands first
		"the longer log":         {at("b", 3, 10), at("a", 3, 9)},
		"the later term":         {at("b", 3, 8), at("a", 2, 9)},
		"the lower id":           {at("a", 3, 9), at("b", 3, 9)},
		"an old one, lower id":   {at("a", 0, 8), at("b", 3, 9)}, // goes by ids, so this one must, too
		"a new one, lower id":    {at("a", 3, 8), at("b", 0, 9)},
		"two old ones, lower id": {at("a", 0, 8), at("b", 0, 9)},
	} {
		if !pair[0].before(pair[1]) || pair[1].before(pair[0]) {
			t.Errorf("%s does not stand first", name)
		}
	}
}
