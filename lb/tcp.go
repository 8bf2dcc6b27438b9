package lb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// ErrNoBackend says that a service has no backend to connect to.
var ErrNoBackend = errors.New("no healthy instance")

// Dial connects to a backend of a service, trying others when one refuses. The
// connection counts as a request in flight until done is called, once.
func (p *Proxy) Dial(ctx context.Context, service string) (conn net.Conn, done func(failed bool), err error) {
	x := exchange{p: p, start: time.Now(), route: Route{Service: service}}
	finish := func(failed bool) {
		x.out.failed = failed
		if !failed {
			x.out.status = http.StatusOK
		}
		x.counter().observe(&x.out, time.Now())
	}
	if x.pool = p.live.Load().pools[service]; x.pool == nil {
		finish(true)
		return nil, nil, fmt.Errorf("service %s: %w", service, ErrNoBackend)
	}
	var tried []*target
	for len(tried) < maxAttempts {
		t := x.pool.pick(tried, time.Now(), random)
		if t == nil {
			break
		}
		if !t.begin() {
			x.refresh()
			continue
		}
		x.target = t
		c, derr := dial(ctx, t.addr, connectTimeout)
		if derr == nil {
			t.healthy()
			x.out.headAfter = time.Since(x.start)
			var once sync.Once
			return c, func(failed bool) { once.Do(func() { t.end(); finish(failed) }) }, nil
		}
		t.end()
		err = derr
		x.fault(t, derr)
		x.out.retries++
		tried = append(tried, t)
		x.refresh()
	}
	finish(true)
	return nil, nil, fmt.Errorf("service %s: %w", service, errors.Join(ErrNoBackend, err))
}

// A TCPServer forwards connections of one listener to a service, in the kernel
// (splice) as far as it can.
type TCPServer struct {
	Proxy    *Proxy
	Listener net.Listener // closed by Run
	Service  string
	// ProxyProtocol sends the client's address ahead (version 1 of the PROXY
	// protocol); the backends must expect it.
	ProxyProtocol bool
}

// Run serves until ctx ends, then lets connections end for drainLimit and cuts
// what is left.
func (s *TCPServer) Run(ctx context.Context) error {
	cut, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { s.Listener.Close() })
	defer stop()
	defer s.Listener.Close()
	var conns sync.WaitGroup
	l := limit(s.Listener)
	for {
		c, err := l.Accept()
		if err != nil {
			grace := time.AfterFunc(drainLimit, cancel)
			conns.Wait()
			grace.Stop()
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept for service %s: %w", s.Service, err)
		}
		conns.Go(func() { s.serve(cut, c) })
	}
}

func (s *TCPServer) serve(ctx context.Context, c net.Conn) {
	defer c.Close()
	up, done, err := s.Proxy.Dial(ctx, s.Service)
	if err != nil {
		return // counted; TCP has no page to explain it on
	}
	defer up.Close()
	stop := context.AfterFunc(ctx, func() { c.Close(); up.Close() })
	defer stop()
	if s.ProxyProtocol {
		if _, err := up.Write([]byte(proxyHeader(c.RemoteAddr(), c.LocalAddr()))); err != nil {
			done(true)
			return
		}
	}
	relay(c, up)
	done(false)
}

// proxyHeader is the line of the PROXY protocol, version 1.
func proxyHeader(from, to net.Addr) string {
	src, ok1 := from.(*net.TCPAddr)
	dst, ok2 := to.(*net.TCPAddr)
	if !ok1 || !ok2 {
		return "PROXY UNKNOWN\r\n"
	}
	family := "TCP4"
	if strings.Contains(src.IP.String(), ":") {
		family = "TCP6"
	}
	return fmt.Sprintf("PROXY %s %s %s %d %d\r\n", family, src.IP, dst.IP, src.Port, dst.Port)
}
