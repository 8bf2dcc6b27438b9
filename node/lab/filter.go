package lab

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"appliance/node/lab/fault"
	"appliance/vagrant"
)

// Cut drops the frames from one machine to another. The other direction
// stays, unless a second Cut takes it.
type Cut struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// cutsBetween returns the cuts of a partition. Two or more groups are cut
// from each other in both directions; a machine in no group keeps all its
// links, so partial partitions are possible. A single group is cut from every
// other machine. The name "host" stands for the host.
func cutsBetween(c vagrant.Cluster, groups [][]string) ([]Cut, error) {
	seen := map[string]bool{}
	for _, group := range groups {
		for _, name := range group {
			if _, ok := c.Machine(name); !ok && name != hostPort {
				return nil, fmt.Errorf("no machine %q in the lab: the machines are %s", name, names(c))
			}
			if seen[name] {
				return nil, fmt.Errorf("%s is in two groups: name it once", name)
			}
			seen[name] = true
		}
	}
	if len(seen) == 0 {
		return nil, fmt.Errorf("a partition needs machines: 'appliance lab partition mm1 / mm2,mm3'")
	}
	if len(groups) == 1 {
		var rest []string
		for _, m := range c.Machines {
			if !seen[m.Name] {
				rest = append(rest, m.Name)
			}
		}
		groups = append(groups, rest)
	}
	var cuts []Cut
	for i, group := range groups {
		for _, other := range groups[i+1:] {
			for _, a := range group {
				for _, b := range other {
					cuts = append(cuts, Cut{a, b}, Cut{b, a})
				}
			}
		}
	}
	return cuts, nil
}

// merge adds cuts that are not there yet.
func merge(cuts, more []Cut) []Cut {
	for _, c := range more {
		if !slices.Contains(cuts, c) {
			cuts = append(cuts, c)
		}
	}
	slices.SortFunc(cuts, func(a, b Cut) int {
		return strings.Compare(a.From+" "+a.To, b.From+" "+b.To)
	})
	return cuts
}

// filter replaces the switch's rules by those of the state, in one nftables
// transaction: no frame passes in between.
func filter(sw process, s *state) error {
	ns, err := netns.GetFromPid(sw.Pid)
	if err != nil {
		return err
	}
	defer ns.Close()
	conn, err := nftables.New(nftables.WithNetNSFd(int(ns)))
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	table := &nftables.Table{Name: "lab", Family: nftables.TableFamilyBridge}
	conn.AddTable(table) // so that there is one to delete
	conn.DelTable(table)
	conn.AddTable(table)
	chain := conn.AddChain(&nftables.Chain{
		Name: "forward", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	add := func(exprs ...expr.Any) {
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(exprs, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop})})
	}
	for _, c := range s.Cuts {
		add(slices.Concat(port(expr.MetaKeyIIFNAME, c.From), port(expr.MetaKeyOIFNAME, c.To))...)
	}
	for _, m := range s.Cluster.Machines {
		if p := s.Loss[m.Name]; p > 0 {
			add(slices.Concat(port(expr.MetaKeyIIFNAME, m.Name), fault.Chance(p))...)
			add(slices.Concat(port(expr.MetaKeyOIFNAME, m.Name), fault.Chance(p))...)
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("nftables in the switch: %w: the kernel needs nf_tables with the bridge family", err)
	}
	return nil
}

func port(key expr.MetaKey, name string) []expr.Any {
	data := make([]byte, unix.IFNAMSIZ)
	copy(data, name)
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data},
	}
}
