package client

import (
	"bufio"
	"context"
	"net"
	"sync"
	"syscall"
	"time"

	"appliance/nfs/rpc"
	"appliance/nfs/xdr"
)

// conn is one transport connection.
type conn struct {
	c    net.Conn
	wmu  sync.Mutex
	mu   sync.Mutex
	wait map[uint32]pendingCall
	dead chan struct{}
	once sync.Once
}

type pendingCall struct {
	ch    chan []byte
	since time.Time
}

func (cn *conn) close() {
	cn.once.Do(func() {
		close(cn.dead)
		cn.c.Close()
	})
}

// oldest is the age of the request that waits longest.
func (cn *conn) oldest() (age time.Duration) {
	cn.mu.Lock()
	defer cn.mu.Unlock()
	for _, p := range cn.wait {
		age = max(age, time.Since(p.since))
	}
	return age
}

func (cn *conn) register(xid uint32) chan []byte {
	ch := make(chan []byte, 1)
	cn.mu.Lock()
	cn.wait[xid] = pendingCall{ch, time.Now()}
	cn.mu.Unlock()
	return ch
}

func (cn *conn) forget(xid uint32) {
	cn.mu.Lock()
	delete(cn.wait, xid)
	cn.mu.Unlock()
}

// read delivers replies until the connection ends.
func (cn *conn) read() {
	defer cn.close()
	r := bufio.NewReaderSize(cn.c, 64<<10)
	for {
		rec, err := rpc.ReadRecord(r)
		if err != nil || len(rec) < 4 {
			return
		}
		xid := xdr.NewDecoder(rec).U32()
		cn.mu.Lock()
		p, ok := cn.wait[xid]
		delete(cn.wait, xid)
		cn.mu.Unlock()
		if ok {
			p.ch <- rec
		}
	}
}

func (cn *conn) send(rec []byte) error {
	cn.wmu.Lock()
	defer cn.wmu.Unlock()
	cn.c.SetWriteDeadline(time.Now().Add(stuck))
	_, err := cn.c.Write(rec)
	return err
}

// live returns the present connection, dialling until there is one.
func (c *Client) live(i Interrupt) (*conn, error) {
	for {
		c.cmu.Lock()
		cn := c.conn
		c.cmu.Unlock()
		if cn != nil {
			select {
			case <-cn.dead:
			default:
				return cn, nil
			}
		}
		select {
		case c.dialing <- struct{}{}:
		case <-c.ctx.Done():
			return nil, ErrClosed
		case <-time.After(fatalPoll):
			if err := i.poll(); err != nil {
				return nil, err
			}
			continue
		}
		err := c.dial(i, cn)
		<-c.dialing
		if err != nil {
			return nil, err
		}
	}
}

// poll returns EINTR when the caller must not wait any longer.
func (i Interrupt) poll() error {
	select {
	case <-i.C:
		if i.Fatal == nil || i.Fatal() {
			return syscall.EINTR
		}
	default:
	}
	return nil
}

// dial replaces the connection old, unless somebody did already.
func (c *Client) dial(i Interrupt, old *conn) error {
	c.cmu.Lock()
	done := c.conn != old
	c.cmu.Unlock()
	if done {
		return nil
	}
	for wait, first := dialBackoff, true; ; wait, first = min(2*wait, dialBackMax), false {
		ctx, cancel := context.WithTimeout(c.ctx, dialTimeout)
		nc, err := c.cfg.Dial(ctx)
		cancel()
		if err == nil {
			if !c.use(nc) {
				return ErrClosed
			}
			if !first {
				c.cfg.Log.Info("volume connected again")
			}
			return nil
		}
		if first {
			c.cfg.Log.Warn("volume not reachable, trying on", "err", err)
		}
		if err := c.sleep(i, wait); err != nil {
			return err
		}
	}
}

// use reads from a new connection, or closes it if the client was closed while it was dialled: Close ends the one
// that it finds.
func (c *Client) use(nc net.Conn) bool {
	c.cmu.Lock()
	defer c.cmu.Unlock()
	if c.ctx.Err() != nil {
		nc.Close()
		return false
	}
	cn := &conn{c: nc, wait: map[uint32]pendingCall{}, dead: make(chan struct{})}
	c.conn = cn
	c.wg.Go(func() { cn.read() })
	return true
}

// exchange sends a record until a reply comes, over as many connections as it takes.
func (c *Client) exchange(i Interrupt, o *ops) ([]byte, error) {
	for {
		cn, err := c.live(i)
		if err != nil {
			return nil, err
		}
		ch := cn.register(o.xid)
		if err := cn.send(o.e.B); err != nil {
			cn.close()
			continue
		}
		rep, err := c.await(i, cn, ch)
		if rep != nil {
			return rep, nil
		}
		if err != nil {
			cn.forget(o.xid)
			return nil, err
		}
	}
}

// await returns a reply, an error, or neither when the connection broke.
func (c *Client) await(i Interrupt, cn *conn, ch chan []byte) ([]byte, error) {
	select {
	case rep := <-ch:
		return rep, nil
	case <-cn.dead:
	case <-c.ctx.Done():
		return nil, ErrClosed
	case <-i.C:
		for {
			if err := i.poll(); err != nil {
				return nil, err
			}
			select {
			case rep := <-ch:
				return rep, nil
			case <-cn.dead:
				return nil, nil
			case <-c.ctx.Done():
				return nil, ErrClosed
			case <-time.After(fatalPoll):
			}
		}
	}
	select { // the reply may have come just before the end
	case rep := <-ch:
		return rep, nil
	default:
		return nil, nil
	}
}
