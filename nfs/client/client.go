// Package client is an NFSv4.1 client (RFC 8881) for one volume. It never gives up: a request
// blocks until the server has answered it exactly once, over broken connections (the session's
// slots), and over restarts of the server (reclaim of opens and locks in the grace period, resend
// of data that was written but not committed).
package client

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"appliance/nfs/proto"
)

const (
	slots        = 16 // requests in flight; more only queue at the server's disk
	maxPending   = 4 << 20
	dialTimeout  = 5 * time.Second
	dialBackoff  = 20 * time.Millisecond
	dialBackMax  = 500 * time.Millisecond
	delayMin     = 5 * time.Millisecond
	delayMax     = 200 * time.Millisecond
	stuck        = 60 * time.Second // no reply for so long: the connection is dead without telling
	fatalPoll    = 100 * time.Millisecond
	defaultLease = 20 * time.Second
)

// Config of a client. Dial and Owner are required.
type Config struct {
	// Dial returns a connection that already presents the volume.
	Dial func(context.Context) (net.Conn, error)
	// Owner identifies this client for ever, over its restarts; no two clients may share one.
	Owner string
	// Verifier is new with every start of the client: the server drops what the last one held.
	Verifier [8]byte
	Log      *slog.Logger
}

// Interrupt lets a caller give up waiting. The zero value never does. A request that was already
// sent still takes effect.
type Interrupt struct {
	C     <-chan struct{} // closed when the caller got a signal
	Fatal func() bool     // after that: whether the signal kills the caller; nil means it does
}

// Client is safe for concurrent use.
type Client struct {
	cfg    Config
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	dialing chan struct{} // a semaphore: who holds it may dial
	cmu     sync.Mutex
	conn    *conn
	xid     atomic.Uint32

	// gate is held for reading while a request is in flight and its result is noted, and for
	// writing while a new session is made and state reclaimed: recovery sees all or nothing of a
	// request.
	gate     sync.RWMutex
	gen      uint64 // of the session; guarded by gate
	clientID uint64
	session  proto.SessionID
	free     chan *slot
	nslots   int
	lease    time.Duration

	smu     sync.Mutex // guards the maps, and is never held over a request
	opens   map[*openState]bool
	files   map[uint64]*File
	nextOwn uint64
	pending atomic.Int64 // bytes written and not committed
}

type slot struct {
	no  uint32
	seq uint32
}

// ErrClosed is what requests get once the client is closed.
var ErrClosed = errors.New("nfs client closed")

// New starts a client. It dials when it is first used.
func New(cfg Config) *Client {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &Client{cfg: cfg, dialing: make(chan struct{}, 1), lease: defaultLease, opens: map[*openState]bool{}, files: map[uint64]*File{}}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.wg.Add(1)
	go c.renew()
	return c
}

// Close ends the session politely when the server is reachable now, and the client in any case.
func (c *Client) Close() {
	done := make(chan struct{})
	go func() {
		select {
		case <-time.After(dialTimeout):
		case <-done:
		}
		c.cancel()
	}()
	c.destroy()
	close(done)
	c.cancel()
	c.cmu.Lock()
	if c.conn != nil {
		c.conn.close()
	}
	c.cmu.Unlock()
	c.wg.Wait()
}

// renew keeps the lease while the client is idle, and cuts connections that went silent. A connection that
// broke is made again at once, though nobody asks for anything: a restarted server waits for every client
// to reclaim before it serves.
func (c *Client) renew() {
	defer c.wg.Done()
	for {
		c.gate.RLock()
		every, live := c.lease/3, c.gen > 0
		c.gate.RUnlock()
		var broken <-chan struct{}
		c.cmu.Lock()
		if c.conn != nil && live {
			broken = c.conn.dead
		}
		c.cmu.Unlock()
		select {
		case <-c.ctx.Done():
			return
		case <-broken:
		case <-time.After(min(every, 10*time.Second)):
		}
		c.cmu.Lock()
		if c.conn != nil && c.conn.oldest() > stuck {
			c.conn.close()
		}
		c.cmu.Unlock()
		idle := Interrupt{C: c.ctx.Done()}
		if live && c.do(idle, request{}) != nil {
			c.sleep(idle, delayMax) // and look again
		}
	}
}

// request is one COMPOUND. build may run several times; parse runs at most once, with the gate
// held, and only when all operations up to the failing one can be decoded.
type request struct {
	build func(*ops)
	parse func(*results) error
}

// doOpen is do for requests that use an open file. Once the file's locks are lost, also while the
// request is retried, the answer is EIO.
func (c *Client) doOpen(i Interrupt, s *openState, r request) error {
	build := r.build
	r.build = func(o *ops) {
		if o.lost = s.lost.Load(); !o.lost {
			build(o)
		}
	}
	return c.do(i, r)
}

// do sends a request and retries until there is a final answer. Errors are syscall.Errno,
// proto.Status, ErrClosed, or EINTR when interrupted.
func (c *Client) do(i Interrupt, r request) error {
	wait := delayMin
	for {
		gen, err := c.attempt(i, r)
		var st proto.Status
		if !errors.As(err, &st) {
			return err
		}
		switch st {
		case proto.ErrBadSession, proto.ErrDeadSession, proto.ErrSeqMisordered, proto.ErrBadSlot, proto.ErrBadHighSlot,
			proto.ErrStaleClientid, proto.ErrSeqFalseRetry, errNoSession:
			if err := c.recover(i, gen); err != nil {
				return err
			}
			continue
		case proto.ErrStaleStateid, proto.ErrBadStateid, proto.ErrExpired, proto.ErrOldStateid:
			if !c.changed(gen) {
				return err
			}
			continue
		case proto.ErrUncachedRep:
			continue
		case proto.ErrDelay, proto.ErrGrace:
			if err := c.sleep(i, wait); err != nil {
				return err
			}
			wait = min(2*wait, delayMax)
			continue
		}
		return err
	}
}

// errNoSession is our own status: there is no session yet.
const errNoSession proto.Status = 1 << 31

// changed says whether a newer session than gen exists.
func (c *Client) changed(gen uint64) bool {
	c.gate.RLock()
	defer c.gate.RUnlock()
	return c.gen != gen
}

func (c *Client) sleep(i Interrupt, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-c.ctx.Done():
		return ErrClosed
	case <-t.C:
		return nil
	case <-i.C:
	}
	if i.Fatal == nil || i.Fatal() {
		return syscall.EINTR
	}
	<-t.C
	return nil
}

// attempt sends the request once, in a slot of the present session.
func (c *Client) attempt(i Interrupt, r request) (gen uint64, err error) {
	c.gate.RLock()
	gen = c.gen
	if gen == 0 {
		c.gate.RUnlock()
		return gen, errNoSession
	}
	s, err := c.takeSlot(i)
	if err != nil {
		c.gate.RUnlock()
		return gen, err
	}
	free := c.free
	release := func() {
		free <- s
		c.gate.RUnlock()
	}
	o := c.newOps(s, r.build)
	if o.lost {
		release()
		return gen, syscall.EIO
	}
	s.seq++
	rep, err := c.exchange(i, o)
	if errors.Is(err, syscall.EINTR) { // the slot is in use until the server has answered
		c.wg.Add(1)
		go func() {
			defer c.wg.Done()
			defer release()
			if rep, err := c.exchange(Interrupt{}, o); err == nil {
				o.finish(rep, r.parse)
			}
		}()
		return gen, err
	}
	defer release()
	if err != nil {
		return gen, err
	}
	return gen, o.finish(rep, r.parse)
}

func (c *Client) takeSlot(i Interrupt) (*slot, error) {
	for {
		select {
		case s := <-c.free:
			return s, nil
		default:
		}
		select {
		case s := <-c.free:
			return s, nil
		case <-c.ctx.Done():
			return nil, ErrClosed
		case <-i.C:
			if i.Fatal == nil || i.Fatal() {
				return nil, syscall.EINTR
			}
			time.Sleep(fatalPoll)
		}
	}
}
