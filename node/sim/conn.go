package sim

import (
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// conn is one end of a stream. Its fields are under the lock of the network.
type conn struct {
	net   *Network
	host  string
	other *conn
	in    []chunk   // sent by the other end, not yet read
	last  time.Time // arrival of the last chunk: none overtakes it
	err   error     // nil while this end is open
	rd    time.Time
	wake  chan struct{} // closed when a reader may look again
}

// chunk is the data of one write. at is when it arrives, zero while the link is down.
type chunk struct {
	data []byte
	fin  bool
	at   time.Time
}

func (c *conn) wakeup() {
	close(c.wake)
	c.wake = make(chan struct{})
}

// fail ends this end.
func (c *conn) fail(err error) {
	if c.err == nil {
		c.err = err
		delete(c.net.conns, c)
		c.wakeup()
	}
}

// failSoon ends this end after d.
func (c *conn) failSoon(d time.Duration, err error) {
	time.AfterFunc(d, func() {
		c.net.mu.Lock()
		defer c.net.mu.Unlock()
		c.fail(err)
	})
}

// hold keeps a chunk for c until its link is mended. The sender gives up if that takes too long, and
// nobody is paused, whose kernel would acknowledge.
func (c *conn) hold(k *chunk) {
	k.at = time.Time{}
	if c.net.blocked(c.other.host, c.host) {
		c.net.stopped(c.other.host, c.host)
	}
	data := k.data
	time.AfterFunc(userTimeout, func() {
		c.net.mu.Lock()
		defer c.net.mu.Unlock()
		cut := c.net.down[[2]string{c.other.host, c.host}]
		for i := range c.in {
			if cut && c.in[i].at.IsZero() && len(data) > 0 && len(c.in[i].data) > 0 && &c.in[i].data[0] == &data[0] {
				c.in = c.in[:i]
				c.other.fail(syscall.ETIMEDOUT)
				return
			}
		}
	})
}

// send puts a chunk on its way to the other end.
func (c *conn) send(k chunk) {
	to := c.other
	if to.err != nil {
		if h := c.net.hosts[to.host]; h.powered && !c.net.blocked(c.host, to.host) && !c.net.blocked(to.host, c.host) {
			c.failSoon(2*c.net.latency(c.host, to.host), syscall.ECONNRESET)
		} else {
			c.failSoon(userTimeout, syscall.ETIMEDOUT)
		}
		return
	}
	k.at = time.Now().Add(c.net.latency(c.host, to.host))
	if k.at.Before(to.last) {
		k.at = to.last
	}
	if c.net.blocked(c.host, to.host) || len(to.in) > 0 && to.in[len(to.in)-1].at.IsZero() {
		to.hold(&k)
	} else {
		to.last = k.at
		if c.net.down[[2]string{to.host, c.host}] {
			c.failIfStillDown()
		}
	}
	to.in = append(to.in, k)
	to.wakeup()
}

// failIfStillDown ends this end if the way back, for acknowledgements, stays broken.
func (c *conn) failIfStillDown() {
	time.AfterFunc(userTimeout, func() {
		c.net.mu.Lock()
		defer c.net.mu.Unlock()
		if c.net.down[[2]string{c.other.host, c.host}] {
			c.fail(syscall.ETIMEDOUT)
		}
	})
}

// Write implements net.Conn. It never blocks.
func (c *conn) Write(b []byte) (int, error) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if c.err != nil {
		return 0, &net.OpError{Op: "write", Net: "sim", Err: c.err}
	}
	if len(b) > 0 {
		c.send(chunk{data: append([]byte(nil), b...)})
	}
	return len(b), nil
}

// Read implements net.Conn.
func (c *conn) Read(b []byte) (int, error) {
	for {
		c.net.mu.Lock()
		n, until, err := c.take(b)
		wake := c.wake
		c.net.mu.Unlock()
		if n > 0 || err != nil || len(b) == 0 {
			return n, err
		}
		var due <-chan time.Time
		if !until.IsZero() {
			due = time.After(time.Until(until))
		}
		select {
		case <-wake:
		case <-due:
		}
	}
}

// take reads what has arrived, or says when it is worth looking again; the zero time is never.
func (c *conn) take(b []byte) (n int, until time.Time, err error) {
	now := time.Now()
	if c.err != nil {
		return 0, until, &net.OpError{Op: "read", Net: "sim", Err: c.err}
	}
	if !c.rd.IsZero() && !now.Before(c.rd) {
		return 0, until, os.ErrDeadlineExceeded
	}
	until = c.rd
	for len(c.in) > 0 && n < len(b) {
		k := &c.in[0]
		if k.at.IsZero() {
			break
		}
		if k.at.After(now) {
			if until.IsZero() || k.at.Before(until) {
				until = k.at
			}
			break
		}
		if k.fin {
			if n == 0 {
				err = io.EOF
			}
			break
		}
		m := copy(b[n:], k.data)
		n += m
		if k.data = k.data[m:]; len(k.data) == 0 {
			c.in = c.in[1:]
		}
	}
	return n, until, err
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if c.err == nil {
		if c.other.err == nil {
			c.send(chunk{fin: true})
		}
		c.fail(net.ErrClosed)
	}
	return nil
}

// Peer is the host at the other end.
func (c *conn) Peer() string { return c.other.host }

func (c *conn) LocalAddr() net.Addr  { return address(c.host + ":7600") }
func (c *conn) RemoteAddr() net.Addr { return address(c.other.host + ":7600") }

// SetDeadline implements net.Conn; writes need none.
func (c *conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	c.rd = t
	c.wakeup()
	return nil
}

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(time.Time) error { return nil }
