package sim

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"time"

	"appliance/discovery/gossip"
)

// Network carries streams between hosts in simulated time. As with TCP, a chunk keeps its place in the
// stream; what a broken link swallows is sent again after the link heals, unless the sender's user
// timeout has broken the connection before. Windows are unbounded: a write never blocks. All fields are
// under mu. Safe for concurrent use.
type Network struct {
	mu       sync.Mutex
	rand     *rand.Rand
	hosts    map[string]*host
	down     map[[2]string]bool          // from, to
	delay    map[[2]string]time.Duration // if not defaultDelay
	conns    map[*conn]bool
	overflow int                     // packets that found a full socket
	changed  chan struct{}           // closed when a dial that waits may look again
	late     map[[2]string]time.Time // arrival of the last packet that was made late
	did      *effects
}

type host struct {
	epoch     int // counts processes
	running   bool
	powered   bool
	paused    bool
	listeners map[string]*listener
	packets   chan *gossip.Packet // of gossip's socket
	waiting   []*gossip.Packet    // for the end of a pause
	lost      float64             // share of packets that get lost
	doubled   float64             // or arrive twice
}

const (
	defaultDelay = 300 * time.Microsecond
	userTimeout  = 1500 * time.Millisecond // as package wire sets TCP_USER_TIMEOUT for RPC and raft
	retransmit   = 200 * time.Millisecond  // at most that long after a link has healed
)

// NewNetwork returns a network without hosts.
func NewNetwork(seed uint64) *Network {
	return &Network{
		rand: rand.New(rand.NewPCG(seed, 2)), hosts: map[string]*host{}, down: map[[2]string]bool{},
		delay: map[[2]string]time.Duration{}, conns: map[*conn]bool{}, changed: make(chan struct{}),
		late: map[[2]string]time.Time{}, did: newEffects(),
	}
}

func (n *Network) notify() {
	close(n.changed)
	n.changed = make(chan struct{})
}

// Boot gives a new process of a host its access to the network.
func (n *Network) Boot(name string) *Port {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.hosts[name]
	if h == nil {
		h = &host{}
		n.hosts[name] = h
	}
	h.epoch++
	h.running, h.powered, h.paused, h.listeners, h.packets = true, true, false, map[string]*listener{}, nil
	h.waiting = nil
	n.notify()
	return &Port{net: n, host: name, epoch: h.epoch}
}

// Stop ends the process of a host. Without power its peers hear nothing; else their connections are reset.
func (n *Network) Stop(name string, power bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.hosts[name]
	h.running, h.powered = false, power
	h.epoch++
	for _, l := range h.listeners {
		l.shut()
	}
	for c := range n.conns {
		if c.host == name {
			c.fail(net.ErrClosed)
			if power && !n.down[[2]string{name, c.other.host}] {
				c.other.failSoon(n.latency(name, c.other.host), syscall.ECONNRESET)
			}
		}
	}
	n.notify()
}

// Cut breaks or mends one direction of a link.
func (n *Network) Cut(from, to string, down bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down[[2]string{from, to}] = down
	n.recheck()
}

// Pause holds everything that goes to or comes from a host, as if its process had stopped: its kernel
// still acknowledges, and keeps packets.
func (n *Network) Pause(name string, paused bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.hosts[name]
	h.paused = paused
	n.recheck()
	for ; !paused && len(h.waiting) > 0; h.waiting = h.waiting[1:] {
		n.give(h, h.waiting[0])
	}
}

// awake returns when the process of p is not paused any more, or has ended, or with ctx.
func (p *Port) awake(ctx context.Context) error {
	for first := true; ; first = false {
		p.net.mu.Lock()
		h, changed := p.net.hosts[p.host], p.net.changed
		asleep := h.paused && h.epoch == p.epoch
		if asleep && first {
			p.net.did.add(heldSteps)
		}
		p.net.mu.Unlock()
		if !asleep {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Slow sets the delay of one direction of a link; 0 is the usual one.
func (n *Network) Slow(from, to string, delay time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.delay[[2]string{from, to}] = delay
}

// Reset breaks all connections between two hosts, for both at once.
func (n *Network) Reset(a, b string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		if c.host == a && c.other.host == b || c.host == b && c.other.host == a {
			c.fail(syscall.ECONNRESET)
			n.did.add(resets)
		}
	}
}

// recheck holds what can no longer pass and releases what can.
func (n *Network) recheck() {
	now := time.Now()
	for c := range n.conns {
		blocked := n.blocked(c.other.host, c.host)
		at := now.Add(time.Duration(n.rand.Int64N(int64(retransmit))))
		for i := range c.in {
			switch {
			case blocked && c.in[i].at.After(now):
				c.hold(&c.in[i])
			case !blocked && c.in[i].at.IsZero():
				c.in[i].at = at
				c.last = at
			}
		}
		c.wakeup()
	}
	n.notify()
}

func (n *Network) blocked(from, to string) bool {
	return n.down[[2]string{from, to}] || n.hosts[from].paused || n.hosts[to].paused
}

// stopped counts a frame that a link which is blocked does not carry.
func (n *Network) stopped(from, to string) {
	if n.hosts[from].paused || n.hosts[to].paused {
		n.did.add(held)
		return
	}
	n.did.add(severed)
	if !n.down[[2]string{to, from}] {
		n.did.add(halfway)
	}
}

// latency draws the delay of one chunk: mostly near the usual one, now and then ten times that.
func (n *Network) latency(from, to string) time.Duration {
	d := n.delay[[2]string{from, to}]
	if d == 0 {
		d = defaultDelay
	} else {
		n.did.add(slowed)
	}
	if n.rand.IntN(100) == 0 {
		d *= 10
	}
	return d/2 + time.Duration(n.rand.Int64N(int64(d)))
}

// Port is the access of one process to the network. It is dead after the process was stopped.
type Port struct {
	net   *Network
	host  string
	epoch int
}

// Listen accepts what is dialed for a service.
func (p *Port) Listen(service string) net.Listener {
	p.net.mu.Lock()
	defer p.net.mu.Unlock()
	l := &listener{addr: address(p.host + ":7600"), backlog: make(chan *conn, 1024), done: make(chan struct{})}
	p.net.hosts[p.host].listeners[service] = l
	return l
}

var errNoHost = errors.New("no such host")

// Dial connects to a service of a host. A link that is down or a host without power gives no answer until
// ctx ends; a host without the process refuses.
func (p *Port) Dial(ctx context.Context, addr, service string) (net.Conn, error) {
	fail := func(err error) error { return &net.OpError{Op: "dial", Net: "sim", Addr: address(addr), Err: err} }
	to, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fail(err)
	}
	n := p.net
	for {
		n.mu.Lock()
		h := n.hosts[to]
		if h == nil || n.hosts[p.host].epoch != p.epoch {
			n.mu.Unlock()
			return nil, fail(errNoHost)
		}
		changed := n.changed
		open := h.powered && !n.blocked(p.host, to) && !n.blocked(to, p.host)
		rtt := n.latency(p.host, to) + n.latency(to, p.host)
		n.mu.Unlock()
		if open {
			if err := pause(ctx, rtt); err != nil {
				return nil, fail(err)
			}
			return p.connect(to, service, fail)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fail(ctx.Err())
		}
	}
}

func (p *Port) connect(to, service string, fail func(error) error) (net.Conn, error) {
	n := p.net
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.hosts[to]
	l := h.listeners[service]
	if n.hosts[p.host].epoch != p.epoch || !h.running || l == nil || l.closed {
		return nil, fail(syscall.ECONNREFUSED)
	}
	a := &conn{net: n, host: p.host, wake: make(chan struct{})}
	b := &conn{net: n, host: to, wake: make(chan struct{}), other: a}
	a.other = b
	select {
	case l.backlog <- b:
	default:
		return nil, fail(syscall.ECONNREFUSED)
	}
	n.conns[a], n.conns[b] = true, true
	return a, nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

type listener struct {
	addr    net.Addr
	backlog chan *conn
	done    chan struct{}
	closed  bool
	once    sync.Once
}

func (l *listener) shut() {
	l.closed = true
	l.once.Do(func() { close(l.done) })
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.backlog:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error { l.once.Do(func() { close(l.done) }); return nil }

func (l *listener) Addr() net.Addr { return l.addr }

type address string

func (address) Network() string  { return "sim" }
func (a address) String() string { return string(a) }
