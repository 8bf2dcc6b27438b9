package network

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"appliance/node/runtime"
)

// ensureBridge makes the bridge, or takes it as it is, and returns its subnet.
func (n *Network) ensureBridge() (netip.Prefix, error) {
	link, err := netlink.LinkByName(n.cfg.Bridge)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return n.makeBridge()
	}
	if err != nil {
		return netip.Prefix{}, err
	}
	addrs, err := netlink.AddrList(link, unix.AF_INET)
	if err != nil {
		return netip.Prefix{}, err
	}
	for _, a := range addrs {
		p := toPrefix(a.IPNet).Masked()
		if !n.cfg.Subnet.IsValid() || p == n.cfg.Subnet.Masked() {
			return p, nil
		}
	}
	if len(n.attached) > 0 && len(addrs) > 0 {
		return netip.Prefix{}, &runtime.Error{Why: fmt.Errorf("it has %s, not %s, and containers use it", addrs[0].IPNet, n.cfg.Subnet),
			What: "change the containers' subnet", Do: "drain the node first"}
	}
	if err := netlink.LinkDel(link); err != nil {
		return netip.Prefix{}, err
	}
	return n.makeBridge()
}

func (n *Network) makeBridge() (netip.Prefix, error) {
	subnet := n.cfg.Subnet
	if !subnet.IsValid() {
		taken, err := routed()
		if err != nil {
			return netip.Prefix{}, err
		}
		if subnet, err = pickSubnet(taken); err != nil {
			return netip.Prefix{}, err
		}
	}
	subnet = subnet.Masked()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = n.cfg.Bridge, uplinkMTU()
	// A fixed hardware address: a bridge takes its lowest port's else, and
	// changes with every container.
	attrs.HardwareAddr = hardwareAddr(gateway(subnet))
	br := &netlink.Bridge{LinkAttrs: attrs}
	if err := netlink.LinkAdd(br); err != nil {
		return netip.Prefix{}, err
	}
	err := netlink.AddrAdd(br, &netlink.Addr{IPNet: toIPNet(netip.PrefixFrom(gateway(subnet), subnet.Bits()))})
	if err == nil {
		err = netlink.LinkSetUp(br)
	}
	if err == nil {
		err = sysctls(n.cfg.Bridge)
	}
	if err != nil {
		return netip.Prefix{}, errors.Join(err, netlink.LinkDel(br))
	}
	return subnet, nil
}

// sysctls lets the node forward, and lets published ports answer on
// 127.0.0.1: the kernel would drop packets from loopback on a real link. A
// rule keeps containers from using that way in.
func sysctls(bridge string) error {
	for _, key := range []string{"ip_forward", "conf/" + bridge + "/route_localnet"} {
		path := "/proc/sys/net/ipv4/" + key
		if b, err := os.ReadFile(path); err == nil && len(b) > 0 && b[0] == '1' {
			continue
		}
		if err := os.WriteFile(path, []byte("1"), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// routed lists the networks this node already reaches.
func routed() ([]netip.Prefix, error) {
	routes, err := netlink.RouteList(nil, unix.AF_INET)
	if err != nil {
		return nil, err
	}
	var out []netip.Prefix
	for _, r := range routes {
		if r.Dst != nil {
			out = append(out, toPrefix(r.Dst))
		}
	}
	return out, nil
}

// uplinkMTU is the MTU towards the default route: tunnels of clouds have
// less than 1500, and larger packets vanish in them.
func uplinkMTU() int {
	const ethernet = 1500
	routes, err := netlink.RouteList(nil, unix.AF_INET)
	if err != nil {
		return ethernet
	}
	for _, r := range routes {
		if r.Dst == nil || r.Dst.IP.IsUnspecified() {
			if l, err := netlink.LinkByIndex(r.LinkIndex); err == nil && l.Attrs().MTU > 0 {
				return min(l.Attrs().MTU, 65535)
			}
		}
	}
	return ethernet
}

// vethName is the host's end of a container's cable.
func vethName(id string) string {
	sum := sha256.Sum256([]byte(id))
	return "appl" + hex.EncodeToString(sum[:5]) // at most 15 bytes
}

// hardwareAddr follows from the address, so that neighbours' caches stay true
// when an address is given again.
func hardwareAddr(ip netip.Addr) net.HardwareAddr {
	b := ip.As4()
	return net.HardwareAddr{0x02, 0x61, b[0], b[1], b[2], b[3]}
}

// plug lays the cable between the bridge and a namespace.
func plug(bridge, nsPath, id string, ip netip.Prefix, gw netip.Addr) error {
	br, err := netlink.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("bridge %s: %w", bridge, err)
	}
	ns, err := netns.GetFromPath(nsPath)
	if err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	defer ns.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.MasterIndex = vethName(id), br.Attrs().MTU, br.Attrs().Index
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerHardwareAddr: hardwareAddr(ip.Addr()), PeerNamespace: netlink.NsFd(int(ns))}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("make veth: %w", err)
	}
	if err := netlink.LinkSetUp(veth); err != nil {
		return fmt.Errorf("raise veth: %w", err)
	}
	// Where br_netfilter is active the bridge itself rewrites a container's
	// packets to its own published port, and must send them back the way they
	// came.
	if err := netlink.LinkSetHairpin(veth, true); err != nil {
		return fmt.Errorf("set veth to hairpin: %w", err)
	}
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	defer h.Close()
	if err := configure(h, ip, gw); err != nil {
		return fmt.Errorf("configure container's network: %w", err)
	}
	return nil
}

func configure(h *netlink.Handle, ip netip.Prefix, gw netip.Addr) error {
	lo, err := h.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := h.LinkSetUp(lo); err != nil {
		return err
	}
	eth, err := h.LinkByName("eth0")
	if err != nil {
		return err
	}
	if err := h.AddrAdd(eth, &netlink.Addr{IPNet: toIPNet(ip)}); err != nil {
		return err
	}
	if err := h.LinkSetUp(eth); err != nil {
		return err
	}
	return h.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Gw: gw.AsSlice()})
}

func unplug(id string) error { return deleteLink(vethName(id)) }

func deleteLink(name string) error {
	link, err := netlink.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if errors.Is(err, unix.ENODEV) { // went with its namespace just now
		return nil
	}
	if err != nil {
		return fmt.Errorf("delete link %s: %w", name, err)
	}
	return nil
}

func toIPNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}

func toPrefix(n *net.IPNet) netip.Prefix {
	a, _ := netip.AddrFromSlice(n.IP.To4())
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(a, ones)
}
