package consul

import (
	"net/http"
	"net/url"
	"strings"

	"appliance/discovery"
)

// nodeMeta reports whether a node has all of ?node-meta=k:v.
func nodeMeta(q url.Values, n *discovery.Node) bool {
	for _, want := range q["node-meta"] {
		k, v, _ := strings.Cut(want, ":")
		if n.Meta[k] != v {
			return false
		}
	}
	return true
}

// tagged reports whether an endpoint has all of ?tag=.
func tagged(q url.Values, e *discovery.Endpoint) bool {
	for _, want := range q["tag"] {
		found := want == ""
		for _, t := range e.Tags {
			found = found || strings.EqualFold(t, want)
		}
		if !found {
			return false
		}
	}
	return true
}

func (s *Server) emptyList(w http.ResponseWriter, r *http.Request) error {
	s.metaHeaders(w, s.cfg.Catalog.Current().Index, "leader")
	return s.respond(w, r, []any{})
}

func (s *Server) catalogDatacenters(w http.ResponseWriter, r *http.Request) error {
	return s.respond(w, r, []string{s.cfg.Datacenter})
}

func (s *Server) catalogNodes(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	return s.read(w, r, query{run: func(v view) (any, uint64, bool, error) {
		out := []nodeJSON{}
		for _, n := range v.table.Nodes() {
			if nodeMeta(q, n) {
				out = append(out, s.nodeJSON(n))
			}
		}
		out, err := filter(q.Get("filter"), out)
		return out, 0, true, err
	}})
}

func (s *Server) catalogServices(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	return s.read(w, r, query{run: func(v view) (any, uint64, bool, error) {
		rows := []catalogServiceJSON{}
		for _, name := range v.table.Names() {
			for _, e := range v.table.Service(name).Endpoints {
				if n := v.table.Node(e.Node); nodeMeta(q, n) {
					rows = append(rows, s.catalogServiceOf(e, n))
				}
			}
		}
		rows, err := filter(q.Get("filter"), rows)
		out := map[string][]string{}
		for _, row := range rows {
			out[row.ServiceName] = union(out[row.ServiceName], row.ServiceTags)
		}
		return out, 0, true, err
	}})
}

func union(tags, more []string) []string {
	tags = list(tags)
next:
	for _, m := range more {
		for _, t := range tags {
			if t == m {
				continue next
			}
		}
		tags = append(tags, m)
	}
	return tags
}

// ofService narrows a read to one service: it wakes for nothing else.
func ofService(name string) func(*discovery.Table) uint64 {
	return func(t *discovery.Table) uint64 { return t.ServiceIndex(name) }
}

func endpoints(t *discovery.Table, name string) []*discovery.Endpoint {
	if svc := t.Service(name); svc != nil {
		return svc.Endpoints
	}
	return nil
}

func (s *Server) catalogService(w http.ResponseWriter, r *http.Request) error {
	q, name := r.URL.Query(), rest(r, "/v1/catalog/service/")
	if name == "" {
		return fail(http.StatusBadRequest, "Missing service name")
	}
	return s.read(w, r, query{version: ofService(name), run: func(v view) (any, uint64, bool, error) {
		out := []catalogServiceJSON{}
		for _, e := range endpoints(v.table, name) {
			if n := v.table.Node(e.Node); tagged(q, e) && nodeMeta(q, n) {
				out = append(out, s.catalogServiceOf(e, n))
			}
		}
		out, err := filter(q.Get("filter"), out)
		return out, 0, true, err
	}})
}

func (s *Server) catalogNode(w http.ResponseWriter, r *http.Request) error {
	name, q := rest(r, "/v1/catalog/node/"), r.URL.Query()
	if name == "" {
		return fail(http.StatusBadRequest, "Missing node name")
	}
	return s.read(w, r, query{run: func(v view) (any, uint64, bool, error) {
		n := v.table.Node(name)
		if n == nil {
			return nil, 0, true, nil
		}
		services := map[string]serviceJSON{}
		for _, e := range v.table.OnNode(name) {
			services[e.ID] = serviceOf(e)
		}
		services, err := filter(q.Get("filter"), services)
		return struct {
			Node     nodeJSON
			Services map[string]serviceJSON
		}{s.nodeJSON(n), services}, 0, true, err
	}})
}

func (s *Server) catalogNodeServices(w http.ResponseWriter, r *http.Request) error {
	name, q := rest(r, "/v1/catalog/node-services/"), r.URL.Query()
	if name == "" {
		return fail(http.StatusBadRequest, "Missing node name")
	}
	return s.read(w, r, query{run: func(v view) (any, uint64, bool, error) {
		type answer struct {
			Node     *nodeJSON
			Services []serviceJSON
		}
		n := v.table.Node(name)
		if n == nil {
			return answer{nil, []serviceJSON{}}, 0, true, nil
		}
		out := []serviceJSON{}
		for _, e := range v.table.OnNode(name) {
			out = append(out, serviceOf(e))
		}
		out, err := filter(q.Get("filter"), out)
		node := s.nodeJSON(n)
		return answer{&node, out}, 0, true, err
	}})
}
