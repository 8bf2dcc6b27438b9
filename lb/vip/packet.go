package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Protocol facts (RFC 9568 section 5).
const (
	Protocol  = 112
	hopLimit  = 255 // sent so, and required, which keeps packets from beyond the link out
	version3  = 3
	typeAdv   = 1
	headLen   = 8
	maxAdvert = 4095 * centisecond
	// maxAddrs is more than any instance of ours has; the wire allows 255.
	maxAddrs    = 255
	centisecond = 10 * time.Millisecond
)

// Multicast groups of VRRP.
var (
	Group4 = netip.MustParseAddr("224.0.0.18")
	Group6 = netip.MustParseAddr("ff02::12")
)

// ErrPacket is wrapped by every reason to discard a packet.
var ErrPacket = errors.New("not a valid VRRPv3 advertisement")

// An Advert is the one message of VRRP.
type Advert struct {
	VRID     uint8
	Priority uint8         // 0: the sender leaves; 255: it owns the address
	Interval time.Duration // between adverts; whole centiseconds, to 40.95 s
	Addrs    []netip.Addr  // of one family; link-local first for IPv6
}

// Marshal encodes the advert. Source and destination enter its checksum.
func (a Advert) Marshal(src, dst netip.Addr) ([]byte, error) {
	cs := a.Interval / centisecond
	switch {
	case a.VRID == 0:
		return nil, errors.New("VRID is 1..255")
	case cs < 1 || a.Interval > maxAdvert:
		return nil, fmt.Errorf("advertisement interval %v is not within 10ms..40.95s", a.Interval)
	case len(a.Addrs) == 0 || len(a.Addrs) > maxAddrs:
		return nil, fmt.Errorf("%d addresses in one advertisement", len(a.Addrs))
	case src.Is4() != dst.Is4():
		return nil, errors.New("source and destination differ in family")
	}
	b := []byte{version3<<4 | typeAdv, a.VRID, a.Priority, byte(len(a.Addrs)), 0, 0, 0, 0}
	binary.BigEndian.PutUint16(b[4:], uint16(cs))
	for _, ip := range a.Addrs {
		if ip.Is4() != src.Is4() {
			return nil, fmt.Errorf("address %v does not fit source %v", ip, src)
		}
		b = append(b, ip.AsSlice()...)
	}
	binary.BigEndian.PutUint16(b[6:], ^fold(pseudo(src, dst, len(b))+sum(b)))
	return b, nil
}

// Parse decodes and verifies an advert from src to dst. The hop limit is the
// caller's to check, as it is not in b.
func Parse(b []byte, src, dst netip.Addr) (Advert, error) {
	bad := func(why string, args ...any) (Advert, error) {
		return Advert{}, fmt.Errorf("%w: %s", ErrPacket, fmt.Sprintf(why, args...))
	}
	if len(b) < headLen {
		return bad("%d bytes", len(b))
	}
	if v := b[0] >> 4; v != version3 {
		return bad("version %d; set the peer to version 3", v)
	}
	if b[0]&15 != typeAdv {
		return bad("type %d", b[0]&15)
	}
	size := 16
	if src.Is4() {
		size = 4
	}
	n := int(b[3])
	if len(b) < headLen+n*size {
		return bad("%d addresses in %d bytes", n, len(b))
	}
	// Peers that leave the pseudo-header out for IPv4 exist.
	if s := sum(b); fold(pseudo(src, dst, len(b))+s) != 0xffff && !(src.Is4() && fold(s) == 0xffff) {
		return bad("checksum")
	}
	a := Advert{VRID: b[1], Priority: b[2], Interval: time.Duration(binary.BigEndian.Uint16(b[4:])&0xfff) * centisecond}
	if a.VRID == 0 || a.Interval == 0 || n == 0 {
		return bad("VRID %d, interval %v, %d addresses", a.VRID, a.Interval, n)
	}
	for i := range n {
		ip, _ := netip.AddrFromSlice(b[headLen+i*size:][:size]) // 4 or 16 bytes
		a.Addrs = append(a.Addrs, ip)
	}
	return a, nil
}

// pseudo is the sum of the pseudo-header (RFC 8200 section 8.1, and its IPv4
// likeness).
func pseudo(src, dst netip.Addr, length int) uint32 {
	return sum(src.AsSlice()) + sum(dst.AsSlice()) + Protocol + uint32(length)
}

func sum(b []byte) (s uint32) {
	for ; len(b) > 1; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return s
}

func fold(s uint32) uint16 {
	for s>>16 != 0 {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}
