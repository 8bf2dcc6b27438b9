package sim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"appliance/discovery/gossip"
)

// gossipPort is where a process takes part in gossip. It implements gossip.Transport: packets may be
// lost, delayed, reordered and duplicated, streams are those of the network.
type gossipPort struct {
	*Port
	ip      net.IP
	packets chan *gossip.Packet
	streams chan net.Conn
	ln      net.Listener
	done    chan struct{}
}

var _ gossip.Transport = (*gossipPort)(nil)

const (
	gossipService = "gossip"
	gossipNumber  = 7601
	// socketBuffer is how many packets a host keeps for a process that does not read.
	socketBuffer = 512
)

// ipOf is the address of a host: host number n of any kind has its own net.
func ipOf(host string) net.IP {
	n, _ := strconv.Atoi(host[1:])
	return net.IPv4(10, 0, host[0]-'a', byte(n)).To4()
}

// hostOf is the inverse, for "ip:port".
func hostOf(addr string) (string, error) {
	host, _, err := net.SplitHostPort(addr)
	ip := net.ParseIP(host).To4()
	if err != nil || ip == nil {
		return "", fmt.Errorf("%q is no address", addr)
	}
	return fmt.Sprintf("%c%d", 'a'+ip[2], ip[3]), nil
}

func gossipAddr(host string) string {
	return net.JoinHostPort(ipOf(host).String(), strconv.Itoa(gossipNumber))
}

// Gossip opens the process's socket for gossip.
func (p *Port) Gossip() gossip.Transport {
	g := &gossipPort{Port: p, ip: ipOf(p.host), packets: make(chan *gossip.Packet, socketBuffer), streams: make(chan net.Conn),
		ln: p.Listen(gossipService), done: make(chan struct{})}
	p.net.mu.Lock()
	p.net.hosts[p.host].packets = g.packets
	p.net.mu.Unlock()
	go g.accept()
	return g
}

func (g *gossipPort) accept() {
	for {
		c, err := g.ln.Accept()
		if err != nil {
			return
		}
		select {
		case g.streams <- c:
		case <-g.done:
			c.Close()
			return
		}
	}
}

// FinalAdvertiseAddr implements gossip.Transport, like the methods below.
func (g *gossipPort) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return g.ip, gossipNumber, nil
}

func (g *gossipPort) PacketCh() <-chan *gossip.Packet { return g.packets }

func (g *gossipPort) StreamCh() <-chan net.Conn { return g.streams }

func (g *gossipPort) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	host, err := hostOf(addr)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return g.Dial(ctx, host+":7601", gossipService)
}

func (g *gossipPort) Shutdown() error {
	select {
	case <-g.done:
		return errors.New("closed twice")
	default:
	}
	close(g.done)
	return g.ln.Close()
}

func (g *gossipPort) WriteTo(b []byte, addr string) (time.Time, error) {
	to, err := hostOf(addr)
	if err != nil {
		return time.Time{}, err
	}
	g.net.packet(g.Port, to, append([]byte(nil), b...), &net.UDPAddr{IP: g.ip, Port: gossipNumber})
	return time.Now(), nil
}

// Lose makes a host lose and duplicate shares (0..1) of the packets that it sends or receives; as many as it
// loses are late.
func (n *Network) Lose(name string, lost, doubled float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[name].lost, n.hosts[name].doubled = lost, doubled
}

// Some packets are lost, doubled or late on any network.
const (
	usualLoss  = 0.002
	usualTwice = 0.002
	usualLate  = 0.01 // that much later, other packets overtake it
	lateBy     = 30 * time.Millisecond
	// lossyLateBy is it on links that also lose packets, and the share of late ones is that of lost ones.
	lossyLateBy = 300 * time.Millisecond
)

// packet sends one, or none, or two.
func (n *Network) packet(from *Port, to string, b []byte, source net.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	a, h := n.hosts[from.host], n.hosts[to]
	if h == nil || a.epoch != from.epoch || !h.running {
		return
	}
	if a.paused || n.down[[2]string{from.host, to}] {
		n.stopped(from.host, to)
		return
	}
	copies := 1
	if n.rand.Float64() < max(usualLoss, a.lost, h.lost) {
		copies = 0
		if a.lost+h.lost > 0 {
			n.did.add(lost)
		}
	} else if n.rand.Float64() < max(usualTwice, a.doubled, h.doubled) {
		copies = 2
		if a.doubled+h.doubled > 0 {
			n.did.add(doubled)
		}
	}
	link := [2]string{from.host, to}
	epoch := h.epoch
	for range copies {
		d := n.latency(from.host, to)
		by := lateBy
		if a.lost+h.lost > 0 {
			by = lossyLateBy
		}
		if n.rand.Float64() < max(usualLate, a.lost, h.lost) {
			d += time.Duration(n.rand.Int64N(int64(by)))
			n.late[link] = time.Now().Add(d)
		} else if time.Now().Add(d).Before(n.late[link]) {
			n.did.add(overtaken)
		}
		time.AfterFunc(d, func() { n.deliver(to, epoch, from.host, &gossip.Packet{Buf: append([]byte(nil), b...), From: source}) })
	}
}

// deliver drops what finds a closed or full socket, or a link that was cut meanwhile. A paused host's kernel
// keeps it.
func (n *Network) deliver(to string, epoch int, from string, p *gossip.Packet) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.hosts[to]
	switch {
	case h.epoch != epoch || h.packets == nil:
	case n.down[[2]string{from, to}]:
		n.stopped(from, to)
	case h.paused:
		n.stopped(from, to)
		if len(h.waiting) < socketBuffer {
			h.waiting = append(h.waiting, p)
		}
	default:
		n.give(h, p)
	}
}

// give puts a packet into a host's socket.
func (n *Network) give(h *host, p *gossip.Packet) {
	p.Timestamp = time.Now()
	select {
	case h.packets <- p:
	default:
		n.overflow++
	}
}
