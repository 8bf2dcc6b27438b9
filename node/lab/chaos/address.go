package chaos

import (
	"net/netip"
	"strings"

	"appliance/node/lab/fault"
	"appliance/node/model"
	"appliance/vagrant"
)

// moves finds each machine an address of the lab's network that nobody has,
// or takes the one that is asked for. told are the addresses for people.
func (c *Control) moves(machines []string, to string) (moves map[string]fault.Move, told string, err error) {
	cluster, err := c.lab.Cluster() // machines may have moved for good
	if err != nil {
		return nil, "", err
	}
	taken := map[netip.Addr]bool{cluster.Host: true, cluster.VIP: true}
	for _, m := range cluster.Machines {
		taken[m.Address] = true
		list, err := c.lab.Faults(m.Name)
		if err != nil {
			return nil, "", err
		}
		for _, f := range list {
			if f.Move != nil {
				taken[f.Move.To.Addr()] = true
			}
		}
	}
	moves = map[string]fault.Move{}
	var list []string
	for _, name := range machines {
		m, _ := cluster.Machine(name)
		addr, err := c.free(cluster, taken, to)
		if err != nil {
			return nil, "", err
		}
		taken[addr] = true
		bits := cluster.Network.Bits()
		moves[name] = fault.Move{From: netip.PrefixFrom(m.Address, bits), To: netip.PrefixFrom(addr, bits), Router: cluster.Host}
		list = append(list, addr.String())
	}
	return moves, strings.Join(list, " "), nil
}

// free is an address of the network at random that is not taken, or the
// wanted one if it is such.
func (c *Control) free(cluster vagrant.Cluster, taken map[netip.Addr]bool, wanted string) (netip.Addr, error) {
	var list []netip.Addr
	first := cluster.Network.Masked().Addr()
	for a := first.Next(); cluster.Network.Contains(a.Next()); a = a.Next() { // the last one is for broadcasts
		if !taken[a] {
			list = append(list, a)
		}
		if a.String() == wanted && !taken[a] {
			return a, nil
		}
	}
	if wanted != "" || len(list) == 0 {
		return netip.Addr{}, model.Errorf(model.CodeInvalid, "no machine can have the address %s", wanted).
			Because("it is not of the network %s, or somebody has it", cluster.Network).Try("leave --to out, for a free one")
	}
	return list[c.rand.IntN(len(list))], nil
}
