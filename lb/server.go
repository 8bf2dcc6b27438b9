package lb

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Limits on clients.
const (
	maxHeaderBytes = 64 << 10         // what the largest cookies need, twice
	headerTimeout  = 10 * time.Second // slow-loris: a head must arrive whole
	clientIdle     = 75 * time.Second // as nginx; above any upstream's idle limit
	clientUnacked  = time.Minute      // a client that takes nothing for so long is gone
	maxConns       = 20000            // per listener; file descriptors are two per connection
	drainLimit     = 30 * time.Second // requests in flight at shutdown
)

// A Server gives a handler its listeners.
type Server struct {
	Handler http.Handler
	// HTTP and TLS are the listeners, either may be nil. The server closes them.
	HTTP, TLS net.Listener
	// GetCertificate chooses by SNI; needed for TLS.
	GetCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// H2C lets clients speak HTTP/2 without TLS (by prior knowledge).
	H2C bool
	Log *slog.Logger // faults of connections, at debug level; nil is slog.Default

	headerTimeout time.Duration // for tests; 0 is headerTimeout
}

// Run serves until ctx ends, then stops accepting, lets requests in flight end,
// and returns. The error is that of a listener that broke.
func (s *Server) Run(ctx context.Context) error {
	// One http.Server for each listener: a shared one sets up HTTP/2 in whichever
	// Serve comes first, and loses TLS connections that come before that is done.
	var servers []*http.Server
	fail := make(chan error, 2)
	var wg sync.WaitGroup
	if s.HTTP != nil {
		srv := s.server()
		servers = append(servers, srv)
		wg.Go(func() { fail <- srv.Serve(limit(s.HTTP)) })
	}
	if s.TLS != nil {
		srv := s.server()
		servers = append(servers, srv)
		wg.Go(func() { fail <- srv.ServeTLS(limit(s.TLS), "", "") })
	}
	var err error
	select {
	case err = <-fail:
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainLimit)
	defer cancel()
	for _, srv := range servers {
		wg.Go(func() {
			if srv.Shutdown(stop) != nil {
				srv.Close()
			}
		})
	}
	wg.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return err
}

func (s *Server) server() *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(s.H2C)
	log := s.Log
	if log == nil {
		log = slog.Default()
	}
	return &http.Server{
		Handler:           s.Handler,
		ReadHeaderTimeout: cmp.Or(s.headerTimeout, headerTimeout),
		IdleTimeout:       clientIdle,
		MaxHeaderBytes:    maxHeaderBytes,
		Protocols:         &protocols,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		TLSConfig:         &tls.Config{GetCertificate: s.GetCertificate, MinVersion: tls.VersionTLS12},
	}
}

// limit bounds the connections of a listener and how long their peers may
// leave data unacknowledged.
func limit(l net.Listener) net.Listener {
	return &limited{Listener: l, slots: make(chan struct{}, maxConns)}
}

type limited struct {
	net.Listener
	slots chan struct{}
}

func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		tc, ok := c.(*net.TCPConn)
		if !ok {
			return c, nil
		}
		select {
		case l.slots <- struct{}{}:
		default: // full: refuse at once rather than queue in silence
			_ = tc.SetLinger(0)
			tc.Close()
			continue
		}
		if rc, err := tc.SyscallConn(); err == nil {
			_ = userTimeout(rc, clientUnacked) // a help, not a need
		}
		return &slotted{TCPConn: tc, free: sync.OnceFunc(func() { <-l.slots })}, nil
	}
}

// slotted gives its slot back when closed. It embeds the TCP connection so that
// splice still finds it.
type slotted struct {
	*net.TCPConn
	free func()
}

func (c *slotted) Close() error {
	c.free()
	return c.TCPConn.Close()
}
