package lb

import (
	"fmt"
	"slices"
	"strings"
)

// A Table is an immutable set of routes and services.
type Table struct {
	hosts    map[string][]Route // per host, longest path prefix first
	services map[string]Service
	names    []string // hosts for the helpful 404, sorted
}

// NewTable checks and indexes. It keeps no reference to the arguments. An error
// names the first fault; a table with a fault is never made.
func NewTable(routes []Route, services []Service) (*Table, error) {
	t := &Table{hosts: map[string][]Route{}, services: map[string]Service{}}
	owner := map[string]string{} // backend id -> service
	for _, s := range services {
		if s.Name == "" {
			return nil, fmt.Errorf("service without a name")
		}
		if _, dup := t.services[s.Name]; dup {
			return nil, fmt.Errorf("service %s: given twice", s.Name)
		}
		s.Backends = slices.Clone(s.Backends)
		for i := range s.Backends {
			b := &s.Backends[i]
			if err := b.normalize(s.Name); err != nil {
				return nil, err
			}
			key := b.ID + " " + b.Addr
			if other, dup := owner[key]; dup {
				return nil, fmt.Errorf("backend %s at %s: in service %s and again in %s", b.ID, b.Addr, other, s.Name)
			}
			owner[key] = s.Name
		}
		t.services[s.Name] = s
	}
	for _, r := range routes {
		if err := r.normalize(); err != nil {
			return nil, err
		}
		for _, have := range t.hosts[r.Host] {
			if have.PathPrefix == r.PathPrefix {
				return nil, fmt.Errorf("route %s%s: goes to service %s and again to %s", r.Host, r.PathPrefix, have.Service, r.Service)
			}
		}
		t.hosts[r.Host] = append(t.hosts[r.Host], r)
	}
	for h, rs := range t.hosts {
		slices.SortFunc(rs, func(a, b Route) int { return len(b.PathPrefix) - len(a.PathPrefix) })
		t.names = append(t.names, h)
	}
	slices.Sort(t.names)
	return t, nil
}

// Match finds the route of a request: the exact host, else the longest
// wildcard, else "*"; within a host the longest path prefix. A host whose routes
// do not take the path falls through to the next wider one.
func (t *Table) Match(host, path string) (Route, bool) {
	host = cleanHost(host)
	if r, ok := matchPath(t.hosts[host], path); ok {
		return r, true
	}
	for rest := host; ; {
		i := strings.IndexByte(rest, '.')
		if i < 0 {
			break
		}
		if r, ok := matchPath(t.hosts["*"+rest[i:]], path); ok {
			return r, true
		}
		rest = rest[i+1:]
	}
	return matchPath(t.hosts["*"], path)
}

func matchPath(routes []Route, path string) (Route, bool) {
	for _, r := range routes {
		if strings.HasPrefix(path, r.PathPrefix) &&
			(len(path) == len(r.PathPrefix) || r.PathPrefix == "" || path[len(r.PathPrefix)] == '/') {
			return r, true
		}
	}
	return Route{}, false
}

// Hosts returns the routed host names, sorted.
func (t *Table) Hosts() []string { return slices.Clone(t.names) }

// Routes returns all routes, by host and then longest prefix first.
func (t *Table) Routes() []Route {
	var out []Route
	for _, h := range t.names {
		out = append(out, t.hosts[h]...)
	}
	return out
}

// Service returns a service of the table by name.
func (t *Table) Service(name string) (Service, bool) {
	s, ok := t.services[name]
	s.Backends = slices.Clone(s.Backends)
	return s, ok
}
