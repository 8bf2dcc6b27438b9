package wire_test

import (
	"io"
	"net"
	"sync"
	"testing"

	"appliance/node/wire/wiretest"
)

// gate forwards one connection until it is frozen: then bytes vanish and nothing is closed.
type gate struct {
	addr   string
	mu     sync.Mutex
	frozen bool
}

func newGate(t *testing.T, target string) *gate {
	t.Helper()
	ln := wiretest.Listen(t)
	g := &gate{addr: ln.Addr().String()}
	var wg sync.WaitGroup
	wg.Go(func() {
		in, err := ln.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", target)
		if err != nil {
			in.Close()
			return
		}
		t.Cleanup(func() { in.Close(); out.Close() })
		wg.Go(func() { io.Copy(g.filter(out), in) })
		wg.Go(func() { io.Copy(g.filter(in), out) })
	})
	t.Cleanup(func() { ln.Close() })
	return g
}

func (g *gate) freeze() {
	g.mu.Lock()
	g.frozen = true
	g.mu.Unlock()
}

func (g *gate) filter(w io.Writer) io.Writer { return filtered{g, w} }

type filtered struct {
	g *gate
	w io.Writer
}

func (f filtered) Write(b []byte) (int, error) {
	f.g.mu.Lock()
	defer f.g.mu.Unlock()
	if f.g.frozen {
		return len(b), nil
	}
	return f.w.Write(b)
}
