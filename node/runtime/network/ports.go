package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"appliance/node/runtime"
)

// checkPorts refuses ports that another container publishes or a process of
// the node listens on.
func (n *Network) checkPorts(id string, ports []runtime.PortMapping) error {
	for _, p := range ports {
		for other, r := range n.attached {
			for _, q := range r.Ports {
				if other != id && collide(p, q) {
					return runtime.Fail(runtime.ErrPortInUse, fmt.Errorf("port %d/%s belongs to container %s", p.HostPort, p.ProtocolOrDefault(), other), "container %s", id)
				}
			}
		}
	}
	return CheckPorts(id, ports)
}

func collide(a, b runtime.PortMapping) bool {
	return a.HostPort == b.HostPort && a.ProtocolOrDefault() == b.ProtocolOrDefault() &&
		(a.HostIP == b.HostIP || wildcard(a.HostIP) || wildcard(b.HostIP))
}

func wildcard(ip string) bool { return ip == "" || ip == "0.0.0.0" }

// CheckPorts binds each port for an instant: the kernel knows best what is
// free.
func CheckPorts(id string, ports []runtime.PortMapping) error {
	for _, p := range ports {
		err := probePort(p)
		switch {
		case errors.Is(err, unix.EADDRINUSE):
			return runtime.Fail(runtime.ErrPortInUse, fmt.Errorf("a process listens on port %d/%s", p.HostPort, p.ProtocolOrDefault()), "container %s", id)
		case errors.Is(err, unix.EADDRNOTAVAIL):
			return runtime.Fail(runtime.ErrInvalid, fmt.Errorf("this node does not have the address %s", p.HostIP), "container %s", id)
		case err != nil:
			return runtime.Fail(nil, err, "container %s: port %d", id, p.HostPort)
		}
	}
	return nil
}

func probePort(p runtime.PortMapping) error {
	ip := p.HostIP
	if ip == "" {
		ip = "0.0.0.0"
	}
	addr := net.JoinHostPort(ip, strconv.Itoa(int(p.HostPort)))
	var lc net.ListenConfig
	if p.ProtocolOrDefault() == "udp" {
		c, err := lc.ListenPacket(context.Background(), "udp4", addr)
		if err != nil {
			return err
		}
		return c.Close()
	}
	l, err := lc.Listen(context.Background(), "tcp4", addr)
	if err != nil {
		return err
	}
	return l.Close()
}

// forgetUDPFlows drops the kernel's memory of flows to UDP ports: it would
// send them to the old place as long as they go on.
func forgetUDPFlows(ports []runtime.PortMapping) {
	for _, p := range ports {
		if p.ProtocolOrDefault() != "udp" {
			continue
		}
		f := &netlink.ConntrackFilter{}
		if f.AddProtocol(unix.IPPROTO_UDP) == nil && f.AddPort(netlink.ConntrackOrigDstPort, p.HostPort) == nil {
			// Without the module there are no flows to forget.
			_, _ = netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, f)
		}
	}
}
