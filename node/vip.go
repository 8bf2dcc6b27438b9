package node

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"appliance/lb/vip"
	"appliance/node/model"
	"appliance/raft/state"
)

// vipRunner is this node's part in the election of the VIP's holder.
type vipRunner struct {
	*vip.Instance
	addr netip.Addr
}

const (
	// vrid is the virtual router id on the link. A second cluster on the same
	// link with another VIP is told apart by the address in the packets.
	vrid = 77
	// vipPriority is the same for all: the holder stays the holder, and ties
	// go to the higher address (RFC 9568).
	vipPriority = 100
	// vipInterval makes a lost holder replaced in about 0.75 s. Half of it
	// would save 0.35 s and make a short stall of a busy machine move the
	// address for nothing, which breaks every connection to it.
	vipInterval = 200 * time.Millisecond
)

// openVIP takes part in the election if the node may hold a VIP.
func (n *Node) openVIP() error {
	if n.cfg.VIP == "" {
		return nil
	}
	addr, err := netip.ParseAddr(n.cfg.VIP)
	if err != nil {
		return err
	}
	link, prefix, err := linkOf(n.cfg.Advertise, n.cfg.Interface)
	if err != nil {
		return model.Errorf(model.CodeInvalid, "cannot tell on which interface the virtual address %s belongs", addr).Because("%v", err).Try("name it with --interface")
	}
	if !prefix.Contains(addr) {
		return model.Errorf(model.CodeInvalid, "the virtual address %s is not of the network %s of %s", addr, prefix.Masked(), link).Try("choose a free address of that network with --vip")
	}
	n.vip = &vipRunner{addr: addr, Instance: &vip.Instance{
		Name: addr.String(), Interface: link, VRID: vrid, Priority: vipPriority, NoPreempt: true, Interval: vipInterval,
		Addresses: []netip.Prefix{netip.PrefixFrom(addr, prefix.Bits())}, Log: n.log,
	}}
	n.part("VIP", n.runVIP)
	return nil
}

// runVIP goes on trying: the interface may come later than the node, or go.
func (n *Node) runVIP(ctx context.Context) error {
	for ctx.Err() == nil {
		err := n.vip.Run(ctx)
		if ctx.Err() == nil {
			n.log.Warn("this node does not take part in the VIP for now", "vip", n.vip.addr, "err", err)
			pause(ctx, time.Second)
		}
	}
	return nil
}

// linkOf finds the interface that has the node's address.
func linkOf(advertise, name string) (string, netip.Prefix, error) {
	ifs, err := net.Interfaces()
	if err != nil {
		return "", netip.Prefix{}, err
	}
	for _, i := range ifs {
		addrs, err := i.Addrs()
		if err != nil || name != "" && i.Name != name {
			continue
		}
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.String())
			if err == nil && (p.Addr().String() == advertise || name != "") {
				return i.Name, p, nil
			}
		}
	}
	return "", netip.Prefix{}, fmt.Errorf("no interface has the address %s", advertise)
}

// vipHolder is the id of the node that holds the VIP, as this node sees it.
// Nodes that do not take part do not know.
func (n *Node) vipHolder() string {
	if n.vip == nil {
		return ""
	}
	holder := n.vip.Status().Holder.String()
	for node := range state.Nodes.All(n.store.Snapshot()) {
		if node.Addr == holder {
			return node.ID
		}
	}
	return ""
}
