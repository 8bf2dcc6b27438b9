package lab

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"appliance/node/lab/fault"
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
		list, err := fault.List(l.faults(machine))
		if err != nil {
			return err
		}
		if ms.Process.alive() && slices.ContainsFunc(list, func(f fault.Fault) bool { return f.Kind == fault.Address }) {
			return fmt.Errorf("%s has another address for a while: 'appliance chaos heal' ends that", machine)
		}
		if ms.Process.alive() {
			old := netip.PrefixFrom(m.Address, s.Cluster.Network.Bits())
			move := fault.Move{From: old, To: netip.PrefixFrom(addr, old.Bits()), Router: s.Cluster.Host}
			err := inNamespace(ms.Process, func(h *netlink.Handle, _ netns.NsHandle) error { return move.Make(h, machineEth) })
			if err != nil {
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

func readdressVerb() Verb {
	return change("readdress", "MACHINE ADDRESS", "Give a machine another address; its node follows, or is told with 'appliance set'", 2, 2, nil,
		func(l *Lab, args []string) (Done, error) {
			addr, err := netip.ParseAddr(args[1])
			if err != nil {
				return Done{}, fmt.Errorf("address %q: %w", args[1], err)
			}
			return Done{"has address " + args[1], args[:1]}, l.Readdress(args[0], addr)
		})
}
