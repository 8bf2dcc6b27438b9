package runtime

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"strings"
)

// LabelPrefix marks the labels that drivers keep for themselves.
const LabelPrefix = "appliance.runtime/"

// idPattern is the intersection of what Docker and containerd accept.
var idPattern = regexp.MustCompile(`^[A-Za-z0-9]+([._-][A-Za-z0-9]+)*$`)

// maxID is containerd's limit on identifiers.
const maxID = 76

// ValidateID reports whether id can name a container in every engine.
func ValidateID(id string) error {
	if len(id) > maxID || !idPattern.MatchString(id) {
		return Fail(ErrInvalid, fmt.Errorf("id %q: letters and digits joined by single . _ -, at most %d bytes", id, maxID), "container id")
	}
	return nil
}

// Validate reports every reason why no engine could run the spec.
func (s ContainerSpec) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if err := ValidateID(s.ID); err != nil {
		errs = append(errs, err)
	}
	if _, err := ParseRef(s.Image); err != nil {
		errs = append(errs, err)
	}
	for _, kv := range s.Env {
		if i := strings.IndexByte(kv, '='); i < 1 || strings.IndexByte(kv, 0) >= 0 {
			bad("env %q: want NAME=value", kv)
		}
	}
	for k := range s.Labels {
		if strings.HasPrefix(k, LabelPrefix) {
			bad("label %q: the prefix %s is reserved", k, LabelPrefix)
		}
	}
	for _, m := range s.Mounts {
		if !path.IsAbs(m.Source) || !path.IsAbs(m.Destination) || path.Clean(m.Destination) == "/" {
			bad("mount %s:%s: both paths must be absolute and the target not /", m.Source, m.Destination)
		}
	}
	r := s.Resources
	if r.CPUs < 0 || r.CPULimit < 0 || r.MemoryBytes < 0 || r.Pids < 0 {
		bad("resources: negative value")
	}
	if r.MemoryBytes > 0 && r.MemoryBytes < minMemory {
		bad("memory %d bytes: at least %d MB are needed to start", r.MemoryBytes, minMemory>>20)
	}
	errs = append(errs, s.validateNetwork()...)
	if len(errs) == 0 {
		return nil
	}
	return &Error{Kind: ErrInvalid, What: "container " + s.ID, Why: errors.Join(errs...)}
}

// minMemory is Docker's lower limit; under it runc itself is killed.
const minMemory = 6 << 20

func (s ContainerSpec) validateNetwork() (errs []error) {
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	mode := s.NetworkOrDefault()
	if mode != NetworkHost && mode != NetworkBridge && mode != NetworkNone {
		bad("network %q: want host, bridge or none", s.Network)
	}
	if len(s.Ports) > 0 && mode != NetworkBridge {
		bad("network %q publishes no ports: use bridge, or listen on the host port", mode)
	}
	seen := map[string]bool{}
	for _, p := range s.Ports {
		if p.HostPort == 0 || p.ContainerPort == 0 {
			bad("port %d:%d: both must be decided", p.HostPort, p.ContainerPort)
		}
		if pr := p.ProtocolOrDefault(); pr != "tcp" && pr != "udp" {
			bad("port %d: protocol %q: want tcp or udp", p.HostPort, p.Protocol)
		}
		if p.HostIP != "" {
			if a, err := netip.ParseAddr(p.HostIP); err != nil || !a.Is4() {
				bad("port %d: host address %q: want IPv4", p.HostPort, p.HostIP)
			}
		}
		key := fmt.Sprint(p.HostIP, p.HostPort, p.ProtocolOrDefault())
		if seen[key] {
			bad("port %d/%s: published twice", p.HostPort, p.ProtocolOrDefault())
		}
		seen[key] = true
	}
	for _, ns := range s.Nameservers {
		if _, err := netip.ParseAddr(ns); err != nil {
			bad("nameserver %q: want an address", ns)
		}
	}
	for _, h := range s.ExtraHosts {
		if _, err := netip.ParseAddr(h.IP); err != nil || len(h.Names) == 0 {
			bad("extra host %q: want an address and names", h.IP)
		}
	}
	return errs
}
