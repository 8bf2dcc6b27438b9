package vip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The kernel forgets a floating address after lifetime unless it is refreshed.
// So a holder that was killed or stopped does not keep it. Seconds are the
// kernel's unit.
const (
	lifetime = 3 * time.Second
	refresh  = time.Second
)

func putAddress(link netlink.Link, p netip.Prefix) error {
	a := address(p)
	a.ValidLft = int(lifetime / time.Second)
	a.PreferedLft = a.ValidLft
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD // detection would delay the takeover
	}
	if err := netlink.AddrReplace(link, a); err != nil {
		return fmt.Errorf("add %v to %s: %w", p, link.Attrs().Name, err)
	}
	return nil
}

// dropAddress removes the address; that it is not there is no error.
func dropAddress(link netlink.Link, p netip.Prefix) error {
	err := netlink.AddrDel(link, address(p))
	if err != nil && !errors.Is(err, syscall.EADDRNOTAVAIL) && !errors.Is(err, syscall.ENODEV) {
		return fmt.Errorf("remove %v from %s: %w", p, link.Attrs().Name, err)
	}
	return nil
}

func address(p netip.Prefix) *netlink.Addr {
	return &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
}

// sourceOf finds the interface's own address to send from: IPv4, or link-local
// IPv6 (RFC 9568 section 5.1.2).
func sourceOf(link netlink.Link, v4 bool, vips []netip.Prefix) (netip.Addr, error) {
	family := netlink.FAMILY_V6
	if v4 {
		family = netlink.FAMILY_V4
	}
	addrs, err := netlink.AddrList(link, family)
	if err != nil {
		return netip.Addr{}, err
	}
next:
	for _, a := range addrs {
		ip, _ := netip.AddrFromSlice(a.IP)
		ip = ip.Unmap()
		for _, p := range vips {
			if p.Addr() == ip {
				continue next
			}
		}
		if v4 || ip.IsLinkLocalUnicast() && a.Flags&unix.IFA_F_TENTATIVE == 0 {
			return ip, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("interface %s has no address of its own to send VRRP from", link.Attrs().Name)
}

// ownAddress reports whether the interface still has the address; it has if
// the kernel does not say.
func ownAddress(link netlink.Link, ip netip.Addr) bool {
	addrs, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	return err != nil || slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return a.IP.Equal(ip.AsSlice()) })
}

func working(a *netlink.LinkAttrs) bool {
	return a.RawFlags&unix.IFF_UP != 0 && a.RawFlags&unix.IFF_RUNNING != 0
}
