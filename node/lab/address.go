package lab

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Readdress gives a machine another address: the old one is taken from its
// interface, the new one added, and the default route set again. It is kept
// over power cycles. /etc/hosts in the machines does not follow, as on real
// ones.
func (l *Lab) Readdress(machine string, addr netip.Addr) error {
	return l.update(func(s *state) error {
		m, ms, err := s.machine(machine)
		if err != nil {
			return err
		}
		if !s.Cluster.Network.Contains(addr) || addr == s.Cluster.Host || addr == s.Cluster.VIP {
			return fmt.Errorf("address %s: choose a free one of %s", addr, s.Cluster.Network)
		}
		for _, other := range s.Cluster.Machines {
			if other.Address == addr {
				return fmt.Errorf("address %s: %s has it: choose a free one of %s", addr, other.Name, s.Cluster.Network)
			}
		}
		if ms.Process.alive() {
			old := netip.PrefixFrom(m.Address, s.Cluster.Network.Bits())
			if err := readdress(ms.Process, old, netip.PrefixFrom(addr, old.Bits()), s.Cluster.Host); err != nil {
				return err
			}
		}
		for i := range s.Cluster.Machines {
			if s.Cluster.Machines[i].Name == machine {
				s.Cluster.Machines[i].Address = addr
			}
		}
		l.log.Info("machine moved", "machine", machine, "from", m.Address, "to", addr)
		return nil
	})
}

func readdress(p process, old, now netip.Prefix, router netip.Addr) error {
	return inNamespace(p, func(h *netlink.Handle, _ netns.NsHandle) error {
		link, err := h.LinkByName(machineEth)
		if err != nil {
			return fmt.Errorf("link %s: %w", machineEth, err)
		}
		had, err := h.AddrList(link, netlink.FAMILY_V4)
		if err != nil {
			return err
		}
		for _, a := range had {
			if a.IP.Equal(old.Addr().AsSlice()) {
				if err := h.AddrDel(link, &a); err != nil {
					return fmt.Errorf("take address %s from %s: %w", old, machineEth, err)
				}
			}
		}
		if err := address(h, machineEth, now); err != nil {
			return err
		}
		if err := h.RouteReplace(&netlink.Route{Gw: net.IP(router.AsSlice())}); err != nil {
			return fmt.Errorf("default route: %w", err)
		}
		return nil
	})
}

func readdressVerb() Verb {
	return change("readdress", "MACHINE ADDRESS", "Give a machine another address; its node is told with 'appliance set'", 2, 2, nil,
		func(l *Lab, args []string) (Done, error) {
			addr, err := netip.ParseAddr(args[1])
			if err != nil {
				return Done{}, fmt.Errorf("address %q: %w", args[1], err)
			}
			return Done{"has address " + args[1], args[:1]}, l.Readdress(args[0], addr)
		})
}
