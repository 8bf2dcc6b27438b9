// Package vip floats addresses among nodes: VRRP version 3 on the wire (RFC
// 9568, IPv4 and IPv6), so that it works beside keepalived and routers, with
// optional fencing by a lease.
//
// The decisions are in a pure state machine, [Step]; [Instance] is the shell
// around it: a raw socket, netlink addresses, gratuitous ARP and unsolicited
// neighbor advertisements. The kernel is given each address with a short
// lifetime only, so a holder that is killed or stopped loses it by itself.
package vip
