package network

import (
	"fmt"
	"net/netip"

	"appliance/node/runtime"
)

// gateway is the subnet's first address: the node.
func gateway(subnet netip.Prefix) netip.Addr { return subnet.Masked().Addr().Next() }

// nextFree finds an address after last, round the subnet, so that one just
// given back rests as long as possible: late packets for the old owner must
// not reach a new one.
func nextFree(subnet netip.Prefix, last netip.Addr, used map[netip.Addr]bool) (netip.Addr, error) {
	first := gateway(subnet).Next()
	size := 1 << (32 - subnet.Bits())
	a := first
	if last.IsValid() && subnet.Contains(last.Next()) {
		a = last.Next()
	}
	for range size {
		// The last address is the broadcast: its successor is outside.
		if !subnet.Contains(a.Next()) || a.Less(first) {
			a = first
		}
		if !used[a] {
			return a, nil
		}
		a = a.Next()
	}
	return netip.Addr{}, &runtime.Error{What: "give a container an address", Why: fmt.Errorf("all %d of %s are taken", size-3, subnet),
		Do: "use a larger subnet for the bridge, or host networking"}
}

// candidates are the subnets tried when none is configured.
func candidates() []netip.Prefix {
	var out []netip.Prefix
	for i := range byte(16) {
		out = append(out, netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 29, i, 0}), 24))
	}
	return out
}

// pickSubnet is the first candidate that overlaps nothing.
func pickSubnet(taken []netip.Prefix) (netip.Prefix, error) {
next:
	for _, c := range candidates() {
		for _, t := range taken {
			if t.Bits() > 0 && t.Overlaps(c) {
				continue next
			}
		}
		return c, nil
	}
	return netip.Prefix{}, &runtime.Error{What: "choose a subnet for containers", Why: fmt.Errorf("172.29.0.0/20 is routed elsewhere"),
		Do: "name a free one in the node's configuration"}
}
