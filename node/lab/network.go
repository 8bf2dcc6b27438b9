package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"appliance/vagrant"
)

const (
	bridgeName = "switch"
	hostPort   = "host" // the bridge port of the host; machines' ports have their names
	machineEth = "eth0"
)

func hostLink(lab string) string { return lab + "0" }

// inNamespace runs fn with a netlink socket in the process's network
// namespace; the socket of the host is nil's job.
func inNamespace(p process, fn func(*netlink.Handle, netns.NsHandle) error) error {
	ns, err := netns.GetFromPid(p.Pid)
	if err != nil {
		return fmt.Errorf("network namespace of process %d: %w", p.Pid, err)
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		return fmt.Errorf("netlink in process %d: %w", p.Pid, err)
	}
	defer h.Close()
	return fn(h, ns)
}

// wireSwitch makes the bridge in the switch's namespace and the host's leg.
func wireSwitch(sw process, lab string, c vagrant.Cluster) error {
	return inNamespace(sw, func(h *netlink.Handle, ns netns.NsHandle) error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = bridgeName
		noSnooping := false // VRRP's multicast must reach every port at once
		if err := h.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &noSnooping}); err != nil {
			return fmt.Errorf("make the bridge: %w: the kernel needs the bridge module", err)
		}
		if err := up(h, bridgeName); err != nil {
			return err
		}
		leg := netlink.NewLinkAttrs()
		leg.Name = hostLink(lab)
		leg.HardwareAddr = mac(c.Host)
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: leg, PeerName: hostPort, PeerNamespace: netlink.NsFd(ns)}); err != nil {
			return fmt.Errorf("make link %s: %w", leg.Name, err)
		}
		if err := plug(h, hostPort); err != nil {
			return err
		}
		host, err := netlink.NewHandle()
		if err != nil {
			return err
		}
		defer host.Close()
		return address(host, leg.Name, netip.PrefixFrom(c.Host, c.Network.Bits()))
	})
}

// wireMachine gives a machine its port on the bridge, address and route.
func wireMachine(sw, p process, c vagrant.Cluster, m vagrant.Machine) error {
	return inNamespace(sw, func(bridge *netlink.Handle, _ netns.NsHandle) error {
		return inNamespace(p, func(h *netlink.Handle, ns netns.NsHandle) error {
			if err := removeLink(bridge, m.Name); err != nil {
				return err // the port of its last life may be a moment from gone
			}
			attrs := netlink.NewLinkAttrs()
			attrs.Name = m.Name
			veth := &netlink.Veth{LinkAttrs: attrs, PeerName: machineEth, PeerNamespace: netlink.NsFd(ns), PeerHardwareAddr: mac(m.Address)}
			if err := bridge.LinkAdd(veth); err != nil {
				return fmt.Errorf("make the port of %s: %w", m.Name, err)
			}
			if err := plug(bridge, m.Name); err != nil {
				return err
			}
			if err := up(h, "lo"); err != nil {
				return err
			}
			if err := address(h, machineEth, netip.PrefixFrom(m.Address, c.Network.Bits())); err != nil {
				return err
			}
			if err := h.RouteAdd(&netlink.Route{Gw: net.IP(c.Host.AsSlice())}); err != nil {
				return fmt.Errorf("default route of %s: %w", m.Name, err)
			}
			return nil
		})
	})
}

// setPort raises or lowers the machine's port on the bridge: the machine
// loses its carrier, as with the cable pulled.
func setPort(sw process, machine string, on bool) error {
	return inNamespace(sw, func(h *netlink.Handle, _ netns.NsHandle) error {
		link, err := h.LinkByName(machine)
		if err != nil {
			return fmt.Errorf("port of %s: %w", machine, err)
		}
		if on {
			return h.LinkSetUp(link)
		}
		return h.LinkSetDown(link)
	})
}

func dropPort(sw process, machine string) error {
	return inNamespace(sw, func(h *netlink.Handle, _ netns.NsHandle) error { return removeLink(h, machine) })
}

// plug joins a port to the bridge.
func plug(h *netlink.Handle, port string) error {
	link, err := h.LinkByName(port)
	if err != nil {
		return fmt.Errorf("port %s: %w", port, err)
	}
	bridge, err := h.LinkByName(bridgeName)
	if err != nil {
		return err
	}
	if err := h.LinkSetMaster(link, bridge); err != nil {
		return fmt.Errorf("join port %s to the bridge: %w", port, err)
	}
	return h.LinkSetUp(link)
}

func up(h *netlink.Handle, name string) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	return h.LinkSetUp(link)
}

func address(h *netlink.Handle, name string, p netip.Prefix) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	ip := &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
	if err := h.AddrAdd(link, &netlink.Addr{IPNet: ip}); err != nil {
		return fmt.Errorf("address %s on %s: %w", p, name, err)
	}
	return h.LinkSetUp(link)
}

// removeLink removes a link if it is there.
func removeLink(h *netlink.Handle, name string) error {
	link, err := h.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err == nil {
		err = h.LinkDel(link)
	}
	if errors.Is(err, unix.ENODEV) {
		return nil // it went with the namespace at its other end in this very moment
	}
	if err != nil {
		return fmt.Errorf("remove link %s: %w", name, err)
	}
	return nil
}

// mac derives a locally administered address from the IP address, so that a
// machine keeps it over power cycles and neighbours' caches stay right.
func mac(a netip.Addr) net.HardwareAddr {
	b := a.As4()
	return net.HardwareAddr{0x02, 0x00, b[0], b[1], b[2], b[3]}
}
