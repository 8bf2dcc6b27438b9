package consul

import (
	"net/http"

	"appliance/discovery"
)

func (s *Server) healthService(w http.ResponseWriter, r *http.Request) error {
	q, name := r.URL.Query(), rest(r, "/v1/health/service/")
	if name == "" {
		return fail(http.StatusBadRequest, "Missing service name")
	}
	passing, err := flag(q, "passing")
	if err != nil {
		return err
	}
	return s.read(w, r, query{version: ofService(name), run: func(v view) (any, uint64, bool, error) {
		out := []healthServiceJSON{}
		for _, e := range endpoints(v.table, name) {
			n := v.table.Node(e.Node)
			if !tagged(q, e) || !nodeMeta(q, n) || (passing && (e.Status != discovery.Passing || e.Draining)) {
				continue
			}
			out = append(out, healthServiceJSON{s.nodeJSON(n), serviceOf(e), endpointChecks(e, n)})
		}
		out, err := filter(q.Get("filter"), out)
		return out, 0, true, err
	}})
}

func (s *Server) healthNode(w http.ResponseWriter, r *http.Request) error {
	q, name := r.URL.Query(), rest(r, "/v1/health/node/")
	if name == "" {
		return fail(http.StatusBadRequest, "Missing node name")
	}
	return s.read(w, r, query{run: func(v view) (any, uint64, bool, error) {
		out, err := filter(q.Get("filter"), nodeChecks(v.table, name))
		return out, 0, true, err
	}})
}

// nodeChecks are all checks on a node, its services' included.
func nodeChecks(t *discovery.Table, name string) []checkJSON {
	n := t.Node(name)
	if n == nil {
		return []checkJSON{}
	}
	out := checksOf(n.Checks)
	for _, e := range t.OnNode(name) {
		out = append(out, checksOf(e.Checks)...)
	}
	return out
}

func (s *Server) healthChecks(w http.ResponseWriter, r *http.Request) error {
	q, name := r.URL.Query(), rest(r, "/v1/health/checks/")
	if name == "" {
		return fail(http.StatusBadRequest, "Missing service name")
	}
	return s.read(w, r, query{version: ofService(name), run: func(v view) (any, uint64, bool, error) {
		out := []checkJSON{}
		for _, e := range endpoints(v.table, name) {
			if nodeMeta(q, v.table.Node(e.Node)) {
				out = append(out, checksOf(e.Checks)...)
			}
		}
		out, err := filter(q.Get("filter"), out)
		return out, 0, true, err
	}})
}

func (s *Server) healthState(w http.ResponseWriter, r *http.Request) error {
	q, want := r.URL.Query(), rest(r, "/v1/health/state/")
	if want == "" {
		return fail(http.StatusBadRequest, "Missing check state")
	}
	return s.read(w, r, query{run: func(v view) (any, uint64, bool, error) {
		out := []checkJSON{}
		for _, n := range v.table.Nodes() {
			if !nodeMeta(q, n) {
				continue
			}
			for _, c := range nodeChecks(v.table, n.Name) {
				if want == "any" || c.Status == want {
					out = append(out, c)
				}
			}
		}
		out, err := filter(q.Get("filter"), out)
		return out, 0, true, err
	}})
}
