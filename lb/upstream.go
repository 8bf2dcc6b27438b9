package lb

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// connectTimeout is short because backends are in the same rack: silence
	// means a dead node, and another backend can answer sooner. Each retry of a
	// request doubles it, so that one lost SYN to a lone backend does no harm.
	connectTimeout = 250 * time.Millisecond
	// unackedTimeout (TCP_USER_TIMEOUT) ends a connection whose data or
	// keep-alive probes nobody acknowledges, so that requests under way to a dead
	// node fail, and are retried, in seconds. A live host with a slow app
	// acknowledges.
	unackedTimeout = 2 * time.Second
	// idleLimit is below the keep-alive timeout of common servers (Apache and
	// Node close after 5 s).
	idleLimit = 4 * time.Second
	// freshLimit is how old an idle connection may be for a request that must
	// not be sent twice: a server that closes idle connections has hardly chosen
	// this instant.
	freshLimit = time.Second
	maxIdle    = 256 // connections kept per target
	ioBuffer   = 4 << 10
	// maxHead bounds a response head; a backend gone mad must not fill memory.
	maxHead = 256 << 10
)

// upstream is one HTTP/1.1 connection to a target. One request owns it at a
// time; nothing reads it while idle, so a request costs no goroutine switch.
type upstream struct {
	net.Conn
	left   int64 // bytes that may be read at present
	br     *bufio.Reader
	bw     *bufio.Writer
	since  time.Time // idle since
	reused bool
	raw    syscall.RawConn
	quiet  bool // result of peek
	peek   func(fd uintptr) bool
}

func newUpstream(c net.Conn) *upstream {
	u := &upstream{Conn: c, bw: bufio.NewWriterSize(c, ioBuffer)}
	u.br = bufio.NewReaderSize(u, ioBuffer)
	if sc, ok := c.(syscall.Conn); ok {
		u.raw, _ = sc.SyscallConn()
	}
	var one [1]byte
	u.peek = func(fd uintptr) bool {
		_, _, err := unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		u.quiet = err == unix.EAGAIN
		return true
	}
	return u
}

var errHead = fmt.Errorf("response head is larger than %d bytes", maxHead)

// Read is what br reads through.
func (u *upstream) Read(p []byte) (int, error) {
	if u.left <= 0 {
		return 0, errHead
	}
	n, err := u.Conn.Read(p[:min(int64(len(p)), u.left)])
	u.left -= int64(n)
	return n, err
}

// alive reports whether an idle connection is neither closed by the server nor
// holding bytes that answer nothing.
func (u *upstream) alive() bool {
	if u.br.Buffered() > 0 || u.raw == nil {
		return false
	}
	u.quiet = false
	return u.raw.Read(u.peek) == nil && u.quiet
}

// dial connects to an address within the timeout.
func dial(ctx context.Context, addr string, timeout time.Duration) (net.Conn, error) {
	d := net.Dialer{
		Timeout:         timeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 2},
		Control:         func(_, _ string, rc syscall.RawConn) error { return userTimeout(rc, unackedTimeout) },
	}
	return d.DialContext(ctx, "tcp", addr)
}

// userTimeout bounds how long sent data may stay unacknowledged.
func userTimeout(rc syscall.RawConn, d time.Duration) error {
	var serr error
	err := rc.Control(func(fd uintptr) {
		serr = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
	})
	if err != nil {
		return err
	}
	return serr
}

// connect returns an idle connection of the target, or a new one. A request
// that must not be sent twice (once) gets only a recently used or new one.
func (t *target) connect(ctx context.Context, once, fresh bool, timeout time.Duration) (*upstream, error) {
	for !fresh {
		u := t.takeIdle(once)
		if u == nil {
			break
		}
		if u.alive() {
			u.reused = true
			return u, nil
		}
		u.Close()
	}
	c, err := dial(ctx, t.addr, timeout)
	if err != nil {
		return nil, err
	}
	return newUpstream(c), nil
}

func (t *target) takeIdle(once bool) *upstream {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(t.idle)
	if n == 0 {
		return nil
	}
	u := t.idle[n-1]
	if age := time.Since(u.since); once && age > freshLimit || age > idleLimit {
		return nil // the newest is too old; reap closes them
	}
	t.idle[n-1] = nil
	t.idle = t.idle[:n-1]
	return u
}

// put takes back a connection on which a full exchange has ended.
func (t *target) put(u *upstream) {
	u.since = time.Now()
	t.mu.Lock()
	keep := !t.gone && len(t.idle) < maxIdle
	if keep {
		t.idle = append(t.idle, u)
	}
	t.mu.Unlock()
	if !keep {
		u.Close()
	}
}

// reap closes idle connections that are too old, or all of them.
func (t *target) reap(all bool) {
	now := time.Now()
	t.mu.Lock()
	n := 0
	for n < len(t.idle) && (all || now.Sub(t.idle[n].since) > idleLimit) {
		n++
	}
	dead := append([]*upstream(nil), t.idle[:n]...)
	t.idle = append(t.idle[:0], t.idle[n:]...)
	t.gone = t.gone || all
	t.mu.Unlock()
	for _, u := range dead {
		u.Close()
	}
}

// keep lets a target that was given up pool connections again.
func (t *target) keep() {
	t.mu.Lock()
	t.gone = false
	t.mu.Unlock()
}
