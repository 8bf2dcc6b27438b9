package network

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// tableName is our table: everything in it is ours and is rewritten whole, in
// one transaction, at each change.
const tableName = "appliance"

var accept = nftables.ChainPolicyAccept

// applyRules writes the rules for what is attached:
//
//	prerouting  raw   from the bridge to 127.0.0.0/8: drop
//	prerouting  dnat  to an address of the node, published port: to container
//	output      dnat  the same, for the node's own processes
//	postrouting snat  from containers to elsewhere: masquerade
//	                  from containers to published ports (hairpin): masquerade
//	                  from loopback to containers: masquerade
func (n *Network) applyRules(subnet netip.Prefix) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	n.writeTable(c, tableName, subnet)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("write nftables rules: %w", err)
	}
	return n.allowForward()
}

func (n *Network) writeTable(c *nftables.Conn, name string, subnet netip.Prefix) {
	t := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: name})
	chain := func(name string, typ nftables.ChainType, hook *nftables.ChainHook, prio *nftables.ChainPriority) func(...[]expr.Any) {
		ch := c.AddChain(&nftables.Chain{Table: t, Name: name, Type: typ, Hooknum: hook, Priority: prio, Policy: &accept})
		c.FlushChain(ch)
		return func(parts ...[]expr.Any) {
			c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: slices.Concat(parts...)})
		}
	}
	loopback := netip.MustParsePrefix("127.0.0.0/8")
	guard := chain("guard", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	guard(iif(n.cfg.Bridge), daddr(loopback, true), verdict(expr.VerdictDrop))

	pre := chain("prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	out := chain("output", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest)
	for _, id := range sortedKeys(n.attached) {
		r := n.attached[id]
		for _, p := range r.Ports {
			match := slices.Concat(toNode(p.HostIP), dport(p.ProtocolOrDefault(), p.HostPort), dnat(r.IP, p.ContainerPort))
			pre(match)
			out(match)
		}
	}
	post := chain("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	post(saddr(subnet, true), daddr(subnet, false), masquerade())
	post(saddr(subnet, true), daddr(subnet, true), ctStatusDNAT(), masquerade())
	post(saddr(loopback, true), oif(n.cfg.Bridge), masquerade())
}

func (n *Network) removeRules() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	if err := deleteTable(c, tableName); err != nil {
		return err
	}
	return n.forbidForward()
}

func deleteTable(c *nftables.Conn, name string) error {
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return fmt.Errorf("list nftables tables: %w", err)
	}
	for _, t := range tables {
		if t.Name == name {
			c.DelTable(t)
			if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("delete nftables table %s: %w", name, err)
			}
		}
	}
	return nil
}

// Probe tells whether the kernel has what bridge networking needs, by making
// a table and a bridge and taking them away. Success is remembered.
func (n *Network) Probe() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.probed || len(n.attached) > 0 {
		return nil
	}
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	const name = "appliance_probe"
	n.writeTable(c, name, candidates()[0])
	if err := c.Flush(); err != nil {
		return fmt.Errorf("the kernel refuses nftables rules: %w", err)
	}
	if err := deleteTable(c, name); err != nil {
		return err
	}
	if err := probeBridge(); err != nil {
		return fmt.Errorf("the kernel makes no bridge: %w", err)
	}
	n.probed = true
	return nil
}

// ours marks the rules that we put in other people's chains.
var ours = []byte("appliance container network")

// allowForward lets containers' packets through where another program, such
// as Docker, set the policy of the node's FORWARD chain to drop.
func (n *Network) allowForward() error {
	c, ch, rules, err := forwardChain()
	if err != nil || ch == nil {
		return err
	}
	for _, r := range rules {
		if bytes.Equal(r.UserData, ours) {
			return nil
		}
	}
	for _, match := range [][]expr.Any{
		iif(n.cfg.Bridge),
		slices.Concat(oif(n.cfg.Bridge), ctEstablished()),
		slices.Concat(oif(n.cfg.Bridge), ctStatusDNAT()),
	} {
		c.InsertRule(&nftables.Rule{Table: ch.Table, Chain: ch, Exprs: slices.Concat(match, verdict(expr.VerdictAccept)), UserData: ours})
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("allow forwarding in table filter: %w", err)
	}
	return nil
}

func (n *Network) forbidForward() error {
	c, ch, rules, err := forwardChain()
	if err != nil || ch == nil {
		return err
	}
	for _, r := range rules {
		if bytes.Equal(r.UserData, ours) {
			if err := c.DelRule(r); err != nil {
				return fmt.Errorf("remove rule from table filter: %w", err)
			}
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("remove rules from table filter: %w", err)
	}
	return nil
}

// forwardChain finds iptables' FORWARD chain; nil when there is none.
func forwardChain() (*nftables.Conn, *nftables.Chain, []*nftables.Rule, error) {
	c, err := nftables.New()
	if err != nil {
		return nil, nil, nil, fmt.Errorf("nftables: %w", err)
	}
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("list nftables chains: %w", err)
	}
	for _, ch := range chains {
		if ch.Table.Name == "filter" && ch.Name == "FORWARD" {
			rules, err := c.GetRules(ch.Table, ch)
			if err != nil {
				return nil, nil, nil, fmt.Errorf("list rules of chain FORWARD: %w", err)
			}
			return c, ch, rules, nil
		}
	}
	return c, nil, nil, nil
}
