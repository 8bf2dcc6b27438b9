package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"
)

// Server answers DNS on some addresses, by UDP and TCP.
type Server struct {
	cfg      Config
	servers  []*dns.Server
	addrs    []string
	views    atomic.Pointer[view]
	forwards chan struct{}
}

// New binds all addresses; none stays bound after an error. The caller runs
// Run or calls Close.
func New(cfg Config) (*Server, error) {
	cfg.defaults()
	s := &Server{cfg: cfg, forwards: make(chan struct{}, maxForwards)}
	for _, addr := range cfg.Addrs {
		if err := s.bind(addr); err != nil {
			s.Close()
			return nil, fmt.Errorf("DNS cannot listen on %s: %w", addr, err)
		}
	}
	s.cfg.Recursors = others(cfg.Recursors, s.addrs)
	return s, nil
}

// others are the recursors that are not this server itself: a machine whose
// resolv.conf names this server must not ask itself round and round.
func others(recursors, own []string) []string {
	var out []string
	for _, r := range recursors {
		if addr := withPort(r); !slices.Contains(own, addr) {
			out = append(out, addr)
		}
	}
	return out
}

// bind opens TCP first: if the port is 0 the kernel chooses it there.
func (s *Server) bind(addr string) error {
	tcp, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	udp, err := net.ListenPacket("udp", tcp.Addr().String())
	if err != nil {
		tcp.Close()
		return err
	}
	s.addrs = append(s.addrs, tcp.Addr().String())
	s.servers = append(s.servers,
		&dns.Server{PacketConn: s.packetConn(udp.(*net.UDPConn)), Handler: s.handler(true), UDPSize: maxUDP},
		&dns.Server{
			Listener: netutil.LimitListener(tcp, maxTCPConns), Handler: s.handler(false),
			ReadTimeout: tcpReadTimeout, IdleTimeout: func() time.Duration { return tcpIdleTimeout },
		})
	return nil
}

// packetConn is udp, with quick answers. On a wildcard address the answer must
// come from the address that was asked, which only the DNS library's own way
// does.
func (s *Server) packetConn(udp *net.UDPConn) net.PacketConn {
	if udp.LocalAddr().(*net.UDPAddr).IP.IsUnspecified() {
		return udp
	}
	return s.batched(udp)
}

func (s *Server) handler(udp bool) dns.Handler {
	return dns.HandlerFunc(func(w dns.ResponseWriter, req *dns.Msg) {
		if err := w.WriteMsg(s.Answer(req, udp)); err != nil {
			s.cfg.Log.Debug("DNS answer was not sent", "to", w.RemoteAddr(), "err", err)
		}
	})
}

// Addrs are the addresses that it listens on.
func (s *Server) Addrs() []string { return s.addrs }

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	group, inner := errgroup.WithContext(ctx)
	for _, server := range s.servers {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		ended := make(chan struct{})
		group.Go(func() error {
			defer close(ended)
			return server.ActivateAndServe()
		})
		group.Go(func() error {
			<-inner.Done()
			select {
			case <-started: // a server that has not started yet cannot be stopped
			case <-ended:
				return nil
			}
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
			defer cancel()
			return server.ShutdownContext(stop)
		})
	}
	if err := group.Wait(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("DNS server: %w", err)
	}
	return ctx.Err()
}

// Close frees the addresses of a server that does not run.
func (s *Server) Close() error {
	var errs []error
	for _, server := range s.servers {
		if server.Listener != nil {
			errs = append(errs, server.Listener.Close())
		}
		if server.PacketConn != nil {
			errs = append(errs, server.PacketConn.Close())
		}
	}
	return errors.Join(errs...)
}
