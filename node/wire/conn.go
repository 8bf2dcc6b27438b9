package wire

import (
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// tracked is an accepted connection that the server closes when it stops, whoever owns it by then.
type tracked struct {
	net.Conn
	mu    sync.Mutex
	after []func() // run once at Close; nil after that
	shut  bool
}

// onClose arranges for fn to run when the connection closes, at once if it has.
func (t *tracked) onClose(fn func()) {
	t.mu.Lock()
	if !t.shut {
		t.after = append(t.after, fn)
		t.mu.Unlock()
		return
	}
	t.mu.Unlock()
	fn()
}

// Close closes the connection; safe to call twice.
func (t *tracked) Close() error {
	t.mu.Lock()
	after := t.after
	t.after, t.shut = nil, true
	t.mu.Unlock()
	for _, fn := range after {
		fn()
	}
	return t.Conn.Close()
}

// track returns nil when the limit of open connections is reached.
func (s *Server) track(conn net.Conn) *tracked {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.conns) >= maxConns {
		return nil
	}
	t := &tracked{Conn: conn}
	s.conns[t] = struct{}{}
	t.after = []func(){func() {
		s.mu.Lock()
		delete(s.conns, t)
		s.mu.Unlock()
	}}
	return t
}

// closeAll ends everything that Run started.
func (s *Server) closeAll() {
	for _, stop := range s.stop {
		stop()
	}
	for _, q := range s.queues {
		q.Close()
	}
	s.mu.Lock()
	all := make([]*tracked, 0, len(s.conns))
	for t := range s.conns {
		all = append(all, t)
	}
	s.mu.Unlock()
	for _, t := range all {
		t.Close()
	}
}

// queue is a net.Listener of connections that were accepted and authenticated elsewhere.
type queue struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newQueue() *queue { return &queue{conns: make(chan net.Conn), done: make(chan struct{})} }

func (q *queue) put(conn net.Conn) {
	select {
	case q.conns <- conn:
	case <-q.done:
		conn.Close()
	}
}

func (q *queue) Accept() (net.Conn, error) {
	select {
	case conn := <-q.conns:
		return conn, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

func (q *queue) Close() error {
	q.once.Do(func() { close(q.done) })
	return nil
}

func (q *queue) Addr() net.Addr { return &net.TCPAddr{} }

// tune makes a dead peer visible: TCP_USER_TIMEOUT (RFC 5482) bounds how long sent data may stay
// unacknowledged, keepalives cover idle connections. Failures only cost detection time.
func tune(conn net.Conn, unacked time.Duration) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: keepAliveIdle, Interval: 2 * time.Second, Count: 3})
	rc, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	_ = rc.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unacked.Milliseconds()))
	})
}
