package vip

import (
	"encoding/binary"
	"net"
	"net/netip"
)

var broadcast = net.HardwareAddr{255, 255, 255, 255, 255, 255}

// gratuitous returns the Ethernet frames that tell the link where an address
// lives now: ARP in its request and its reply form (hosts differ in which they
// heed; RFC 5227 section 3), or an unsolicited neighbor advertisement with the
// override flag (RFC 4861 section 7.2.6).
func gratuitous(ip netip.Addr, mac net.HardwareAddr) [][]byte {
	if ip.Is4() {
		return [][]byte{arp(1, ip, mac, make(net.HardwareAddr, 6)), arp(2, ip, mac, broadcast)}
	}
	return [][]byte{neighborAdvert(ip, mac)}
}

func arp(op uint16, ip netip.Addr, mac, target net.HardwareAddr) []byte {
	b := ethernet(broadcast, mac, 0x0806)
	b = append(b, 0, 1, 8, 0, 6, 4) // Ethernet, IPv4, address lengths
	b = binary.BigEndian.AppendUint16(b, op)
	b = append(append(b, mac...), ip.AsSlice()...)
	return append(append(b, target...), ip.AsSlice()...)
}

func neighborAdvert(ip netip.Addr, mac net.HardwareAddr) []byte {
	all := netip.MustParseAddr("ff02::1")
	msg := []byte{136, 0, 0, 0, 0x20, 0, 0, 0} // type, code, checksum, override
	msg = append(append(msg, ip.AsSlice()...), 2, 1)
	msg = append(msg, mac...)
	const icmpv6 = 58
	check := sum(ip.AsSlice()) + sum(all.AsSlice()) + icmpv6 + uint32(len(msg)) + sum(msg)
	binary.BigEndian.PutUint16(msg[2:], ^fold(check))

	b := ethernet(net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}, mac, 0x86dd)
	b = append(b, 0x60, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(msg)))
	b = append(b, icmpv6, hopLimit)
	b = append(append(b, ip.AsSlice()...), all.AsSlice()...)
	return append(b, msg...)
}

func ethernet(dst, src net.HardwareAddr, kind uint16) []byte {
	b := append(append(make([]byte, 0, 96), dst...), src...)
	return binary.BigEndian.AppendUint16(b, kind)
}
