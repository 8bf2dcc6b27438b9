package vip

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// socket is a raw VRRP socket on one interface and family.
type socket struct {
	f   *os.File
	rc  syscall.RawConn
	v4  bool
	src netip.Addr
	to  unix.Sockaddr
}

// openSocket joins the group on the interface. src is the sender's address.
func openSocket(ifi *net.Interface, src netip.Addr) (*socket, error) {
	s := &socket{v4: src.Is4(), src: src}
	family := unix.AF_INET6
	if s.v4 {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, Protocol)
	if err != nil {
		return nil, fmt.Errorf("open VRRP socket: %w (needs root or CAP_NET_RAW)", err)
	}
	set := s.options6
	if s.v4 {
		set = s.options4
	}
	if err := set(fd, ifi); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("set up VRRP socket on %s: %w", ifi.Name, err)
	}
	s.f = os.NewFile(uintptr(fd), "vrrp")
	s.rc, err = s.f.SyscallConn()
	return s, err
}

func (s *socket) options4(fd int, ifi *net.Interface) error {
	s.to = &unix.SockaddrInet4{Addr: Group4.As4()}
	mreq := &unix.IPMreqn{Multiaddr: Group4.As4(), Address: s.src.As4(), Ifindex: int32(ifi.Index)}
	return first(
		unix.BindToDevice(fd, ifi.Name),
		unix.Bind(fd, &unix.SockaddrInet4{}),
		unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, mreq),
		unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, mreq),
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, hopLimit),
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP, 0),
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TOS, 0xc0), // internet control
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PRIORITY, 6),
	)
}

func (s *socket) options6(fd int, ifi *net.Interface) error {
	s.to = &unix.SockaddrInet6{Addr: Group6.As16(), ZoneId: uint32(ifi.Index)}
	return first(
		unix.BindToDevice(fd, ifi.Name),
		unix.Bind(fd, &unix.SockaddrInet6{Addr: s.src.As16(), ZoneId: uint32(ifi.Index)}),
		unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, &unix.IPv6Mreq{Multiaddr: Group6.As16(), Interface: uint32(ifi.Index)}),
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, ifi.Index),
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, hopLimit),
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP, 0),
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PRIORITY, 6),
	)
}

// receive blocks for the next valid advert of any VRID. An error that wraps
// ErrPacket concerns one packet, any other the socket.
func (s *socket) receive() (netip.Addr, Advert, error) {
	var buf [1600]byte
	var oob [128]byte
	var n, oobn int
	var from unix.Sockaddr
	var rerr error
	err := s.rc.Read(func(fd uintptr) bool {
		n, oobn, _, from, rerr = unix.Recvmsg(int(fd), buf[:], oob[:], 0)
		return rerr != unix.EAGAIN
	})
	if err = first(err, rerr); err != nil {
		return netip.Addr{}, Advert{}, err
	}
	src, dst, hops, payload := s.split(buf[:n], oob[:oobn], from)
	if hops != hopLimit {
		return src, Advert{}, fmt.Errorf("%w: from %v with TTL %d, not 255", ErrPacket, src, hops)
	}
	a, err := Parse(payload, src, dst)
	return src, a, err
}

// split finds addresses and hop limit: in the IPv4 header, which raw sockets
// deliver, or in the control message for IPv6.
func (s *socket) split(b, oob []byte, from unix.Sockaddr) (src, dst netip.Addr, hops int, payload []byte) {
	if !s.v4 {
		if sa, ok := from.(*unix.SockaddrInet6); ok {
			src = netip.AddrFrom16(sa.Addr)
		}
		msgs, _ := unix.ParseSocketControlMessage(oob) // none leaves hops 0, which is refused
		for _, m := range msgs {
			if m.Header.Type == unix.IPV6_HOPLIMIT && len(m.Data) >= 4 {
				hops = int(m.Data[0])
			}
		}
		return src, Group6, hops, b
	}
	if len(b) < 20 || len(b) < int(b[0]&15)*4 {
		return
	}
	return netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20])), int(b[8]), b[int(b[0]&15)*4:]
}

func (s *socket) send(a Advert) error {
	dst := Group6
	if s.v4 {
		dst = Group4
	}
	b, err := a.Marshal(s.src, dst)
	if err != nil {
		return err
	}
	var serr error
	err = s.rc.Control(func(fd uintptr) { serr = unix.Sendto(int(fd), b, unix.MSG_DONTWAIT, s.to) })
	return first(err, serr)
}

func (s *socket) close() { s.f.Close() }

// sendFrames writes raw Ethernet frames.
func sendFrames(ifindex int, frames [][]byte) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, f := range frames {
		if err := unix.Sendto(fd, f, unix.MSG_DONTWAIT, &unix.SockaddrLinklayer{Ifindex: ifindex, Halen: 6}); err != nil {
			return err
		}
	}
	return nil
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
