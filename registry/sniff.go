package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

const (
	// sniffTimeout: a client speaks first in HTTP and TLS.
	sniffTimeout = 10 * time.Second
	// maxSniffing bounds silent connections; each costs a goroutine.
	maxSniffing = 1024
	// tlsHandshake is the first byte of a TLS connection (RFC 8446, 5.1).
	tlsHandshake = 0x16
)

// Sniff returns a listener that accepts HTTP and TLS on one port: docker uses
// plain HTTP for 127.0.0.1 but TLS for a name, and skips to HTTP only for
// some. The inner listener must be TCP; it is closed with the result. Config
// nil serves plain HTTP only.
func Sniff(inner net.Listener, config *tls.Config) net.Listener {
	l := &sniffer{Listener: inner, config: config, ready: make(chan net.Conn), closed: make(chan struct{}), slots: make(chan struct{}, maxSniffing)}
	go l.run()
	return l
}

type sniffer struct {
	net.Listener
	config *tls.Config
	ready  chan net.Conn
	closed chan struct{}
	slots  chan struct{}
	once   sync.Once
	err    error // of the inner Accept; set before closed is closed
}

func (l *sniffer) run() {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			var temporary net.Error
			if errors.As(err, &temporary) && temporary.Timeout() || errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ECONNABORTED) {
				time.Sleep(10 * time.Millisecond)
				continue
			}
			l.finish(err)
			return
		}
		select {
		case l.slots <- struct{}{}:
			go l.sniff(conn)
		default:
			conn.Close()
		}
	}
}

// sniff looks at the first byte without taking it, so that a plain connection
// stays a *net.TCPConn and keeps sendfile.
func (l *sniffer) sniff(conn net.Conn) {
	conn.SetReadDeadline(time.Now().Add(sniffTimeout))
	first, err := peek(conn)
	conn.SetReadDeadline(time.Time{})
	<-l.slots
	if err != nil {
		conn.Close()
		return
	}
	if first == tlsHandshake && l.config != nil {
		conn = tls.Server(conn, l.config)
	}
	select {
	case l.ready <- conn:
	case <-l.closed:
		conn.Close()
	}
}

func peek(conn net.Conn) (byte, error) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return 0, errors.New("sniff: not a socket")
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, err
	}
	var b [1]byte
	var n int
	var readErr error
	err = raw.Read(func(fd uintptr) bool {
		n, _, readErr = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
		return readErr != syscall.EAGAIN && readErr != syscall.EINTR
	})
	if err == nil {
		err = readErr
	}
	if err == nil && n == 0 {
		err = errors.New("sniff: closed before the first byte")
	}
	return b[0], err
}

func (l *sniffer) finish(err error) {
	l.once.Do(func() { l.err = err; close(l.closed) })
}

// Accept implements net.Listener.
func (l *sniffer) Accept() (net.Conn, error) {
	select {
	case conn := <-l.ready:
		return conn, nil
	case <-l.closed:
		return nil, l.err
	}
}

// Close implements net.Listener.
func (l *sniffer) Close() error {
	l.finish(net.ErrClosed)
	return l.Listener.Close()
}

// Serve serves h on the listener, HTTP and TLS, until ctx ends; then requests
// in flight have ten seconds. It closes the listener.
func Serve(ctx context.Context, inner net.Listener, config *tls.Config, h http.Handler, log *slog.Logger) error {
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10, // tokens and paging queries are far shorter
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(Sniff(inner, config)) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if server.Shutdown(grace) != nil {
		server.Close()
	}
	<-done
	return nil
}
