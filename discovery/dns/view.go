package dns

import (
	"net/netip"
	"strings"

	"appliance/discovery"
)

// view holds the indexes over one table that only DNS needs.
type view struct {
	table  *discovery.Table
	folded map[string]string // lower-case node name -> name
	byAddr map[netip.Addr]owner
}

// owner is who a reverse name points to: the node, else the service.
type owner struct{ node, service string }

// view gives the indexes of t, made once per content (equal indexes are equal
// content). Two callers that race make
// it twice, with the same outcome.
func (s *Server) view(t *discovery.Table) *view {
	if v := s.views.Load(); v != nil && v.table.Index == t.Index {
		return v
	}
	v := &view{table: t, folded: map[string]string{}, byAddr: map[netip.Addr]owner{}}
	for _, name := range t.Names() {
		for _, e := range t.Service(name).Endpoints {
			if addr, err := netip.ParseAddr(e.Addr); err == nil {
				if _, taken := v.byAddr[addr.Unmap()]; !taken {
					v.byAddr[addr.Unmap()] = owner{service: name}
				}
			}
		}
	}
	for _, n := range t.Nodes() {
		v.folded[strings.ToLower(n.Name)] = n.Name
		if addr, err := netip.ParseAddr(n.Addr); err == nil {
			if v.byAddr[addr.Unmap()].node == "" {
				v.byAddr[addr.Unmap()] = owner{node: n.Name}
			}
		}
	}
	s.views.Store(v)
	return v
}

func (v *view) node(t *discovery.Table, name string) *discovery.Node {
	if n := t.Node(name); n != nil {
		return n
	}
	return t.Node(v.folded[name])
}
