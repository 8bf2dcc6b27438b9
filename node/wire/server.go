package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"appliance/node/pki"
)

// Server accepts connections from other nodes. Register all handlers before Run.
type Server struct {
	keys *pki.Keychain
	log  *slog.Logger
	raw  map[string]func(net.Conn, Peer)
	// queues feed an acceptor: an http.Server or an engine.
	queues map[string]*queue
	serve  []func() error
	stop   []func()
	slots  chan struct{} // handshakes
	joins  chan struct{} // unauthenticated connections

	mu    sync.Mutex
	conns map[*tracked]struct{}
	tasks sync.WaitGroup
}

// NewServer returns a server that shows the certificate of keys.
func NewServer(keys *pki.Keychain, log *slog.Logger) *Server {
	return &Server{
		keys:   keys,
		log:    log,
		raw:    map[string]func(net.Conn, Peer){},
		queues: map[string]*queue{},
		slots:  make(chan struct{}, maxHandshakes),
		joins:  make(chan struct{}, maxJoins),
		conns:  map[*tracked]struct{}{},
	}
}

// Handle registers the handler of raw connections of an ALPN protocol. The connection is open while fn
// runs and is closed after it. fn must return when reads fail, which they do when the server stops.
func (s *Server) Handle(alpn string, fn func(net.Conn, Peer)) { s.raw[alpn] = fn }

// Listener returns a net.Listener of the raw connections of an ALPN protocol, for engines that want to
// accept by themselves. They own what they accept.
func (s *Server) Listener(alpn string) net.Listener {
	q := newQueue()
	s.queues[alpn] = q
	return q
}

// HandleHTTP registers the handler of h2 requests; PeerFrom(r.Context()) tells who asks.
func (s *Server) HandleHTTP(h http.Handler) {
	s.handleHTTP(HTTP, &http.Server{
		Handler: h,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          1024, // long polls and feeds of one node share a connection
			MaxReceiveBufferPerStream:     1 << 20,
			MaxReceiveBufferPerConnection: 3 << 20, // the most that the library accepts is below 4 MiB
			SendPingTimeout:               5 * time.Second,
			PingTimeout:                   5 * time.Second,
			WriteByteTimeout:              5 * time.Second,
		},
	})
}

// HandleJoin registers the handler for machines without a valid certificate. It must authenticate by
// token, or by Peer.Expired for renewals.
func (s *Server) HandleJoin(h http.Handler) {
	s.handleHTTP(Join, &http.Server{
		Handler:        http.MaxBytesHandler(h, 1<<20),
		ReadTimeout:    15 * time.Second,
		WriteTimeout:   60 * time.Second, // admitting a master waits for commits
		IdleTimeout:    15 * time.Second,
		MaxHeaderBytes: 16 << 10,
	})
}

func (s *Server) handleHTTP(alpn string, srv *http.Server) {
	q := newQueue()
	s.queues[alpn] = q
	srv.ReadHeaderTimeout = handshakeTimeout
	srv.ErrorLog = slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)
	srv.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		tc, ok := conn.(*tls.Conn)
		if !ok {
			tc = conn.(joinConn).Conn
		}
		peer, err := s.peer(tc)
		if err != nil {
			peer = Peer{Addr: conn.RemoteAddr().String()}
		}
		return WithPeer(ctx, peer)
	}
	s.serve = append(s.serve, func() error { return srv.Serve(q) })
	s.stop = append(s.stop, func() { srv.Close() })
}

// peer identifies the other side after the handshake. On join connections an expired certificate
// still proves who asks, since the handshake proved the key.
func (s *Server) peer(conn *tls.Conn) (Peer, error) {
	cs := conn.ConnectionState()
	addr := conn.RemoteAddr().String()
	if cs.NegotiatedProtocol != Join {
		who, err := verify(s.keys, cs)
		return Peer{Identity: who, Addr: addr}, err
	}
	if len(cs.PeerCertificates) == 0 {
		return Peer{Addr: addr}, nil
	}
	now := time.Now()
	leaf := cs.PeerCertificates[0]
	expired := now.After(leaf.NotAfter)
	if expired {
		now = leaf.NotAfter
	}
	who, err := pki.Verify(cs.PeerCertificates, s.keys.Roots(), s.keys.Identity().Cluster, now)
	return Peer{Identity: who, Addr: addr, Expired: expired, NotAfter: leaf.NotAfter}, err
}

// Run serves ln until ctx ends or ln fails, then closes every connection. It owns ln.
func (s *Server) Run(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer s.tasks.Wait()
	defer s.closeAll()
	defer cancel()
	for _, serve := range s.serve {
		s.tasks.Go(func() {
			if err := serve(); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
				s.log.Error("internal HTTP server stopped", "err", err)
			}
		})
	}
	s.tasks.Go(func() {
		<-ctx.Done()
		ln.Close()
	})
	return s.accept(ctx, ln, s.config())
}

func (s *Server) accept(ctx context.Context, ln net.Listener, conf *tls.Config) error {
	for {
		conn, err := ln.Accept()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return nil
		}
		if err != nil {
			if !temporary(err) {
				return fmt.Errorf("accept on %s: %w", ln.Addr(), err)
			}
			s.log.Warn("cannot accept connections for a moment", "addr", ln.Addr(), "err", err)
			select { // out of file descriptors: more of the same will not help
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		raw := s.track(conn)
		if raw == nil {
			conn.Close()
			continue
		}
		select {
		case s.slots <- struct{}{}:
		case <-ctx.Done():
			raw.Close()
			return nil
		}
		s.tasks.Go(func() { s.handshake(ctx, raw, conf) })
	}
}

func temporary(err error) bool {
	var ne net.Error
	//lint:ignore SA1019 it is the documented way to tell EMFILE and ECONNABORTED from a closed listener
	return errors.As(err, &ne) && ne.Temporary()
}

// handshake authenticates one connection and hands it to its protocol.
func (s *Server) handshake(ctx context.Context, raw *tracked, conf *tls.Config) {
	tune(raw.Conn, userTimeout)
	conn := tls.Server(raw, conf)
	hctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	err := conn.HandshakeContext(hctx)
	cancel()
	<-s.slots
	var peer Peer
	if err == nil {
		peer, err = s.peer(conn)
	}
	if err != nil {
		if !errors.Is(err, io.EOF) {
			s.log.Debug("handshake refused", "peer", raw.RemoteAddr(), "err", err)
		}
		conn.Close()
		return
	}
	s.dispatch(conn, raw, peer)
}

func (s *Server) dispatch(conn *tls.Conn, raw *tracked, peer Peer) {
	alpn := conn.ConnectionState().NegotiatedProtocol
	if alpn == Join {
		select {
		case s.joins <- struct{}{}:
			raw.onClose(func() { <-s.joins })
		default:
			conn.Close() // the client retries; nodes are not affected
			return
		}
	}
	if q := s.queues[alpn]; q != nil { // whoever accepts it closes it
		if alpn == Join {
			q.put(joinConn{conn})
		} else {
			q.put(conn)
		}
		return
	}
	defer conn.Close()
	if fn := s.raw[alpn]; fn != nil {
		fn(conn, peer)
	}
}

// joinConn hides the TLS type from net/http, which would close a connection whose ALPN it does not know.
type joinConn struct{ *tls.Conn }

// config offers what has a handler. A client that asks for join gets a configuration in which its
// certificate is optional, and nothing but join can come out of that handshake.
func (s *Server) config() *tls.Config {
	var alpn []string
	for name := range s.raw {
		alpn = append(alpn, name)
	}
	for name := range s.queues {
		if name != Join {
			alpn = append(alpn, name)
		}
	}
	slices.Sort(alpn)
	conf := mutual(s.keys, alpn)
	if s.queues[Join] == nil {
		return conf
	}
	join := mutual(s.keys, []string{Join})
	join.ClientAuth = tls.RequestClientCert
	join.GetCertificate = s.keys.GetJoinCertificate
	join.VerifyConnection = func(cs tls.ConnectionState) error {
		if cs.NegotiatedProtocol != Join {
			return fmt.Errorf("%w: no certificate", ErrRefused)
		}
		return nil // a certificate, if any, is verified in peer
	}
	conf.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if slices.Contains(hello.SupportedProtos, Join) {
			return join, nil
		}
		return nil, nil
	}
	// A client without ALPN would otherwise be connected to nothing.
	verify := conf.VerifyConnection
	conf.VerifyConnection = func(cs tls.ConnectionState) error {
		if cs.NegotiatedProtocol == "" {
			return fmt.Errorf("%w: it offered no protocol", ErrRefused)
		}
		return verify(cs)
	}
	return conf
}
