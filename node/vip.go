package node

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"appliance/lb/vip"
	"appliance/node/model"
	"appliance/raft/command"
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
	// vipPriority plus a part of the address is a node's priority: different
	// ones settle an election at once. Preemption is off: the holder stays.
	vipPriority = 100
	vipSpread   = 100
	// vipInterval makes a lost holder replaced in about 0.75 s. Half of it
	// would save 0.35 s and make a short stall of a busy machine move the
	// address for nothing, which breaks every connection to it.
	vipInterval = 200 * time.Millisecond
)

// openVIP prepares this node's part in the election, if it may hold a VIP;
// front runs it.
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
		Name: addr.String(), Interface: link, VRID: vrid, Priority: vipPriorityOf(n.cfg.Advertise), NoPreempt: true, Interval: vipInterval,
		Addresses: []netip.Prefix{netip.PrefixFrom(addr, prefix.Bits())}, Log: n.log,
	}}
	n.part("VIP holder", n.tellHolder)
	return n.vip.Clear()
}

func vipPriorityOf(addr string) uint8 {
	ip := net.ParseIP(addr)
	return vipPriority + ip[len(ip)-1]%vipSpread
}

// holdsVIP reports whether this node has held the VIP for at least a while.
func (n *Node) holdsVIP(atLeast time.Duration) bool {
	if n.vip == nil {
		return false
	}
	st := n.vip.Status()
	return st.Phase == vip.Active && time.Since(st.Since) >= atLeast
}

// runVIP goes on trying: the interface may come later than the node, or go.
func (n *Node) runVIP(ctx context.Context) error {
	for ctx.Err() == nil && !n.awaitVIP(time.Now()) {
		pause(ctx, settled)
	}
	for ctx.Err() == nil {
		err := n.vip.Run(ctx)
		if ctx.Err() == nil {
			n.log.Warn("this node does not take part in the VIP for now", "vip", n.vip.addr, "err", err)
			pause(ctx, time.Second)
		}
	}
	return nil
}

// loneVIP is when a master that nobody leads takes part in the election all
// the same: the routes of its last snapshot are better than none.
const loneVIP = 30 * time.Second

// awaitVIP reports whether this node's ingress knows where to send visitors. A
// master that starts without a majority has an empty state or one of long ago,
// while agents that hold the VIP know all.
func (n *Node) awaitVIP(now time.Time) bool {
	return n.voter == nil || n.core.leader() != "" || n.cluster().ID != "" && now.Sub(n.started) >= loneVIP
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

// tellHolder notes in the log that this node holds the VIP, whenever that
// begins. It goes on until it is heard or the address has moved on.
func (n *Node) tellHolder(ctx context.Context) error {
	for ctx.Err() == nil {
		if n.holdsVIP(settled) && n.recordedHolder() != n.cfg.ID {
			try, cancel := context.WithTimeout(ctx, 5*time.Second)
			_, err := command.Do(try, n.proposer, &command.SetVIPHolder{Node: n.cfg.ID, At: time.Now().UTC()})
			cancel()
			if err != nil {
				n.log.Debug("holder of the VIP is not noted yet", "err", err)
			}
		}
		pause(ctx, settled)
	}
	return nil
}

// settled is how long the VIP must have been here to be worth an entry.
const settled = 500 * time.Millisecond

func (n *Node) recordedHolder() string { return n.cluster().VIPHolder }

// vipHolder is the id of the node that holds the VIP: as the packets say on a
// node that takes part in the election, as the log says elsewhere.
func (n *Node) vipHolder() string {
	runner := n.vip
	if runner == nil {
		runner = n.stand.Load()
	}
	if runner == nil {
		if holder := n.recordedHolder(); n.answers(holder) {
			return holder
		}
		return ""
	}
	holder := runner.Status().Holder.String()
	for node := range state.Nodes.All(n.store.Snapshot()) {
		if node.Addr == holder {
			return node.ID
		}
	}
	return ""
}
