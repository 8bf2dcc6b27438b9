// Package network connects containers to the node: a network namespace each,
// a bridge, addresses, and published ports, by netlink and nftables in this
// process. Neither CNI plugins nor the iptables, nft or ip programs are
// needed.
//
// What is attached is what the run directory and the kernel hold; there is no
// database. The directory is on tmpfs, so a reboot clears both together.
package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"

	"appliance/node/runtime"
)

// Config says where a node's container network lives.
type Config struct {
	// Run is a directory on tmpfs: one subdirectory for each container.
	Run string
	// Bridge is the interface's name; empty: "appl0". One bridge per network
	// namespace of the node.
	Bridge string
	// Subnet is the bridge's IPv4 network, /16 to /29; zero: the subnet of
	// the bridge when it exists, else the first free of 172.29.0-15.0/24.
	Subnet netip.Prefix
	Log    *slog.Logger `json:"-"`
}

// Network is the node's container network. It is safe for concurrent use.
type Network struct {
	cfg Config

	mu       sync.Mutex
	attached map[string]record
	last     netip.Addr // last address given, so that addresses rest after use
	probed   bool
}

// Attachment is a container's place in the network.
type Attachment struct {
	Netns       string // path of the namespace
	IP, Gateway string
}

// record is what the run directory keeps of one attachment.
type record struct {
	IP      netip.Addr            `json:"ip"`
	Gateway netip.Addr            `json:"gateway"`
	Ports   []runtime.PortMapping `json:"ports,omitempty"`
}

// Open reads what is attached. Nothing is made before the first Attach.
func Open(cfg Config) (*Network, error) {
	if cfg.Bridge == "" {
		cfg.Bridge = "appl0"
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if s := cfg.Subnet; s.IsValid() && (!s.Addr().Is4() || s.Bits() < 16 || s.Bits() > 29) {
		return nil, &runtime.Error{Kind: runtime.ErrInvalid, What: "container network " + s.String(), Why: errors.New("want IPv4, /16 to /29")}
	}
	if err := os.MkdirAll(cfg.Run, 0o700); err != nil {
		return nil, runtime.Fail(nil, err, "container network")
	}
	n := &Network{cfg: cfg, attached: map[string]record{}}
	entries, err := os.ReadDir(cfg.Run)
	if err != nil {
		return nil, runtime.Fail(nil, err, "container network")
	}
	for _, e := range entries {
		b, err := os.ReadFile(n.recordPath(e.Name()))
		var r record
		if err == nil && json.Unmarshal(b, &r) == nil {
			n.attached[e.Name()] = r
		}
	}
	return n, nil
}

// Close does nothing to containers.
func (n *Network) Close() error { return nil }

func (n *Network) dir(id string) string        { return filepath.Join(n.cfg.Run, id) }
func (n *Network) netns(id string) string      { return filepath.Join(n.cfg.Run, id, "ns") }
func (n *Network) recordPath(id string) string { return filepath.Join(n.cfg.Run, id, "net.json") }

// Attach gives a container a namespace, an address and its ports. It is
// idempotent; a failure leaves nothing.
func (n *Network) Attach(id string, ports []runtime.PortMapping) (_ Attachment, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if r, ok := n.attached[id]; ok {
		if isNetns(n.netns(id)) {
			return n.attachment(id, r), nil
		}
		if err := n.detach(id); err != nil { // its namespace went with a reboot
			return Attachment{}, err
		}
	}
	if err := n.checkPorts(id, ports); err != nil {
		return Attachment{}, err
	}
	subnet, err := n.ensureBridge()
	if err != nil {
		return Attachment{}, runtime.Fail(nil, err, "container network: bridge %s", n.cfg.Bridge)
	}
	ip, err := nextFree(subnet, n.last, n.used())
	if err != nil {
		return Attachment{}, err
	}
	r := record{IP: ip, Gateway: gateway(subnet), Ports: ports}
	if err := n.save(id, r); err != nil {
		return Attachment{}, runtime.Fail(nil, err, "attach container %s", id)
	}
	n.attached[id], n.last = r, ip
	defer func() {
		if err != nil {
			err = errors.Join(runtime.Fail(nil, err, "attach container %s", id), n.detach(id))
		}
	}()
	if err := makeNetns(n.netns(id)); err != nil {
		return Attachment{}, err
	}
	if err := plug(n.cfg.Bridge, n.netns(id), id, netip.PrefixFrom(ip, subnet.Bits()), r.Gateway); err != nil {
		return Attachment{}, err
	}
	if err := n.applyRules(subnet); err != nil {
		return Attachment{}, err
	}
	forgetUDPFlows(ports)
	return n.attachment(id, r), nil
}

func (n *Network) attachment(id string, r record) Attachment {
	return Attachment{Netns: n.netns(id), IP: r.IP.String(), Gateway: r.Gateway.String()}
}

func (n *Network) used() map[netip.Addr]bool {
	used := map[netip.Addr]bool{}
	for _, r := range n.attached {
		used[r.IP] = true
	}
	return used
}

// save writes the record before anything is made, so that a crash leaves a
// trace to clean by.
func (n *Network) save(id string, r record) error {
	if err := os.MkdirAll(n.dir(id), 0o700); err != nil {
		return err
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return os.WriteFile(n.recordPath(id), b, 0o600)
}

// Lookup finds a container's attachment.
func (n *Network) Lookup(id string) (Attachment, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	r, ok := n.attached[id]
	if !ok {
		return Attachment{}, false
	}
	return n.attachment(id, r), true
}

// Detach undoes Attach; a container that is not attached is no error.
func (n *Network) Detach(id string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.attached[id]; !ok {
		if _, err := os.Stat(n.dir(id)); err != nil {
			return nil
		}
	}
	return n.detach(id)
}

func (n *Network) detach(id string) error {
	r := n.attached[id]
	delete(n.attached, id)
	var errs []error
	if len(n.attached) == 0 {
		errs = append(errs, n.removeRules())
	} else if len(r.Ports) > 0 {
		errs = append(errs, n.reapply())
	}
	forgetUDPFlows(r.Ports)
	errs = append(errs, unplug(id), removeNetns(n.netns(id)))
	if len(n.attached) == 0 {
		errs = append(errs, deleteLink(n.cfg.Bridge))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("detach container %s: %w", id, err)
	}
	if err := os.RemoveAll(n.dir(id)); err != nil {
		return fmt.Errorf("detach container %s: %w", id, err)
	}
	return nil
}

func (n *Network) reapply() error {
	subnet, err := n.ensureBridge()
	if err != nil {
		return err
	}
	return n.applyRules(subnet)
}

// Recover detaches every container that is not in live and makes sure that
// the rules for the others stand.
func (n *Network) Recover(live map[string]bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	entries, err := os.ReadDir(n.cfg.Run)
	if err != nil {
		return fmt.Errorf("container network: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if !live[e.Name()] {
			errs = append(errs, n.detach(e.Name()))
		}
	}
	if len(n.attached) > 0 {
		errs = append(errs, n.reapply())
	} else if n.bridgeExists() {
		// The run directory was lost but the kernel's side was not: its rules
		// would go on sending published ports to addresses of the dead.
		errs = append(errs, n.removeRules(), deleteLink(n.cfg.Bridge))
	}
	return errors.Join(errs...)
}

// bridgeExists also tells whether there can be rules: they are made after the
// bridge and removed before it.
func (n *Network) bridgeExists() bool {
	_, err := netlink.LinkByName(n.cfg.Bridge)
	return err == nil
}

// IDs lists the attached containers.
func (n *Network) IDs() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var ids []string
	for id := range n.attached {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
