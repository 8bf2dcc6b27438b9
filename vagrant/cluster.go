// Package vagrant holds the one description of the cluster's machines,
// cluster.yaml, and reads it. The Vagrantfile beside it reads the same file.
package vagrant

import (
	"bytes"
	_ "embed"
	"fmt"
	"io"
	"net/netip"
	"os"
	"regexp"
	"slices"

	"go.yaml.in/yaml/v3"
)

// The roles of design.md section 2.
const (
	RoleMaster = "master"
	RoleAgent  = "agent"
)

// maxMachines bounds a description: the lab makes a machine of each entry.
const maxMachines = 64

// Cluster is a set of machines on one network. Values are never changed
// after Parse.
type Cluster struct {
	Name     string       `yaml:"name" json:"name"`
	Network  netip.Prefix `yaml:"network" json:"network"`
	Host     netip.Addr   `yaml:"host" json:"host"` // the host's own address on the network
	VIP      netip.Addr   `yaml:"vip" json:"vip"`
	Box      string       `yaml:"box" json:"box"`     // Vagrant box
	Names    []string     `yaml:"names" json:"names"` // host names for the VIP
	Machines []Machine    `yaml:"machines" json:"machines"`
}

// Machine is one host.
type Machine struct {
	Name       string            `yaml:"name" json:"name"`
	Role       string            `yaml:"role" json:"role"`
	Address    netip.Addr        `yaml:"address" json:"address"`
	Attributes map[string]string `yaml:"attributes" json:"attributes,omitempty"`
	Memory     int               `yaml:"memory" json:"memory"` // MiB, for Vagrant
	CPUs       int               `yaml:"cpus" json:"cpus"`     // for Vagrant
}

//go:embed cluster.yaml
var clusterYAML []byte

// Load returns the cluster of cluster.yaml.
func Load() (Cluster, error) { return Parse(clusterYAML) }

// LoadFile reads another description; an empty name is Load.
func LoadFile(name string) (Cluster, error) {
	if name == "" {
		return Load()
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return Cluster{}, err
	}
	return Parse(text)
}

// Parse reads and validates one description. Unknown fields are errors.
func Parse(text []byte) (Cluster, error) {
	var c Cluster
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&c); err != nil {
		return Cluster{}, fmt.Errorf("cluster description: %w", err)
	}
	if err := dec.Decode(new(Cluster)); err != io.EOF {
		return Cluster{}, fmt.Errorf("cluster description: more than one document: keep one")
	}
	if err := c.validate(); err != nil {
		return Cluster{}, fmt.Errorf("cluster description: %w", err)
	}
	return c, nil
}

// Machine returns the machine of that name.
func (c Cluster) Machine(name string) (Machine, bool) {
	i := slices.IndexFunc(c.Machines, func(m Machine) bool { return m.Name == name })
	if i < 0 {
		return Machine{}, false
	}
	return c.Machines[i], true
}

// Masters returns the masters in the order of the file; the first one makes
// the cluster.
func (c Cluster) Masters() []Machine {
	var masters []Machine
	for _, m := range c.Machines {
		if m.Role == RoleMaster {
			masters = append(masters, m)
		}
	}
	return masters
}

// machineName fits a host name and, with room for a prefix, a network
// interface (15 characters in Linux).
var machineName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,11}$`)

var clusterName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,30}$`)

func (c Cluster) validate() error {
	if !clusterName.MatchString(c.Name) {
		return fmt.Errorf("name %q: use lower-case letters, digits and '-'", c.Name)
	}
	if !c.Network.IsValid() || !c.Network.Addr().Is4() || c.Network.Masked() != c.Network || c.Network.Bits() > 29 {
		return fmt.Errorf("network %q: write an IPv4 network such as 192.168.56.0/24", c.Network)
	}
	if len(c.Machines) == 0 || len(c.Machines) > maxMachines {
		return fmt.Errorf("%d machines: from 1 to %d are possible", len(c.Machines), maxMachines)
	}
	taken := map[netip.Addr]string{}
	names := map[string]bool{"host": true} // the lab calls the host's port so
	if err := c.claim(taken, "host", c.Host); err != nil {
		return err
	}
	if c.VIP.IsValid() {
		if err := c.claim(taken, "vip", c.VIP); err != nil {
			return err
		}
	}
	for _, m := range c.Machines {
		if !machineName.MatchString(m.Name) || names[m.Name] {
			return fmt.Errorf("machine %q: the name must be unique, at most 12 of a-z, 0-9 and '-'", m.Name)
		}
		names[m.Name] = true
		if m.Role != RoleMaster && m.Role != RoleAgent {
			return fmt.Errorf("machine %s: role %q is neither master nor agent", m.Name, m.Role)
		}
		if err := c.claim(taken, m.Name, m.Address); err != nil {
			return err
		}
	}
	if len(c.Masters()) == 0 {
		return fmt.Errorf("no machine has role master: the first master makes the cluster")
	}
	return nil
}

// claim takes an address of the network for one holder.
func (c Cluster) claim(taken map[netip.Addr]string, holder string, a netip.Addr) error {
	if !c.Network.Contains(a) || a == c.Network.Addr() || a == broadcast(c.Network) {
		return fmt.Errorf("%s: address %q is not a host address of %s", holder, a, c.Network)
	}
	if other, ok := taken[a]; ok {
		return fmt.Errorf("%s: address %s belongs to %s already", holder, a, other)
	}
	taken[a] = holder
	return nil
}

func broadcast(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(b)
}
