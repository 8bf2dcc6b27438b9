package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"

	"appliance/vagrant"
)

// maxSocketPath is what fits into a unix socket address with its final zero.
const maxSocketPath = 107

// preflight looks for everything that would make Up fail, and changes
// nothing. It returns the state of a lab that was up before and whose disks
// are still there, or nil.
func preflight(c vagrant.Cluster, o Options) (*state, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("the lab makes namespaces and mounts: run it as root")
	}
	for _, ns := range []string{"net", "mnt", "uts", "pid", "ipc", "cgroup"} {
		if _, err := os.Stat("/proc/self/ns/" + ns); err != nil {
			return nil, fmt.Errorf("this kernel has no %s namespaces: the lab cannot run here; use the Vagrant machines", ns)
		}
	}
	if _, err := hierarchies(); err != nil {
		return nil, err
	}
	if _, err := os.Stat(o.Binary); err != nil {
		return nil, fmt.Errorf("binary for the machines: %w: build it first", err)
	}
	for _, m := range c.Machines {
		if p := filepath.Join(o.Dir, m.Name, "run", "api.sock"); len(p) > maxSocketPath {
			return nil, fmt.Errorf("%s is too long for a socket's path (%d, at most %d): choose a shorter directory", p, len(p), maxSocketPath)
		}
	}
	if strings.HasPrefix(dataDir+"/", o.Dir+"/") {
		return nil, fmt.Errorf("the lab cannot lie at %s, above %s: choose another directory", o.Dir, dataDir)
	}
	before, err := checkDir(o.Dir)
	if err != nil {
		return nil, err
	}
	if len(findProcesses(o.Dir)) > 0 {
		return nil, fmt.Errorf("processes of a lab at %s are left: remove them with 'appliance lab down'", o.Dir)
	}
	return before, checkNetwork(c.Network, hostLink(o.Name))
}

// checkDir accepts a directory that is not there, is empty, or holds the
// disks of a lab that does not run.
func checkDir(dir string) (*state, error) {
	s, err := readState(dir)
	switch {
	case err == nil && s.Switch.alive():
		return nil, ErrUp
	case err == nil:
		return s, nil
	case !errors.Is(err, ErrDown):
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("lab directory: %w", err)
	}
	if len(entries) > 0 {
		return nil, fmt.Errorf("%s is not empty and holds no lab: choose another directory", dir)
	}
	return nil, nil
}

// checkNetwork refuses a network that the host already has somewhere, such as
// VirtualBox' own host-only network.
func checkNetwork(network netip.Prefix, link string) error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list network links: %w", err)
	}
	byIndex := map[int]string{}
	for _, l := range links {
		byIndex[l.Attrs().Index] = l.Attrs().Name
		if l.Attrs().Name == link {
			return fmt.Errorf("link %s exists already: a lab was not removed: 'appliance lab down'", link)
		}
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if overlaps(network, a.IPNet) {
			return fmt.Errorf("the lab's network %s is already on %s (%s): remove that, or change network and addresses in vagrant/cluster.yaml", network, byIndex[a.LinkIndex], a.IPNet)
		}
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst != nil && !isDefault(r.Dst) && overlaps(network, r.Dst) {
			return fmt.Errorf("the host has a route to %s over %s, within the lab's network %s: remove it, or change vagrant/cluster.yaml", r.Dst, byIndex[r.LinkIndex], network)
		}
	}
	return nil
}

func isDefault(n *net.IPNet) bool {
	ones, _ := n.Mask.Size()
	return ones == 0
}

func overlaps(p netip.Prefix, n *net.IPNet) bool {
	a, ok := netip.AddrFromSlice(n.IP.To4())
	if !ok {
		return false
	}
	ones, _ := n.Mask.Size()
	return p.Overlaps(netip.PrefixFrom(a, ones).Masked())
}
