package consul

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"time"

	"appliance/discovery"
	"appliance/node/model"
	"appliance/raft/state"
)

func (s *Server) agentSelf(w http.ResponseWriter, r *http.Request) error {
	t := s.cfg.Catalog.Current()
	n := t.Node(s.cfg.Node)
	isServer := n != nil && n.Role == model.RoleMaster
	meta := map[string]string{}
	if n != nil {
		meta = dict(n.Meta)
	}
	return s.respond(w, r, map[string]any{
		"Config": map[string]any{
			"Datacenter": s.cfg.Datacenter, "PrimaryDatacenter": s.cfg.Datacenter, "NodeName": s.cfg.Node, "NodeID": s.cfg.NodeID,
			"Revision": "", "Server": isServer, "Version": s.cfg.Version, "BuildDate": "", "BindAddr": s.cfg.Addr,
		},
		"DebugConfig": map[string]any{"Datacenter": s.cfg.Datacenter, "NodeName": s.cfg.Node, "ServerMode": isServer},
		"Coord":       nil,
		"Member":      s.member(s.cfg.Node, s.cfg.NodeID, s.cfg.Addr, isServer, memberAlive),
		"Stats":       map[string]any{},
		"Meta":        meta,
		"xDS":         map[string]any{},
	})
}

func (s *Server) agentVersion(w http.ResponseWriter, r *http.Request) error {
	return s.respond(w, r, map[string]string{"SHA": "", "BuildDate": "", "HumanVersion": s.cfg.Version, "FIPS": ""})
}

// Serf's words for the state of a member.
const (
	memberAlive  = 1
	memberLeft   = 3
	memberFailed = 4
)

func (s *Server) member(name, id, addr string, server bool, status int) map[string]any {
	role := "node"
	if server {
		role = "consul"
	}
	return map[string]any{
		"Name": name, "Addr": addr, "Port": 7601, "Status": status,
		"Tags":        map[string]string{"role": role, "dc": s.cfg.Datacenter, "id": id, "port": serverPort, "vsn": "3", "build": s.cfg.Version},
		"ProtocolMin": 1, "ProtocolMax": 5, "ProtocolCur": 2, "DelegateMin": 2, "DelegateMax": 5, "DelegateCur": 4,
	}
}

func (s *Server) agentMembers(w http.ResponseWriter, r *http.Request) error {
	out := []map[string]any{}
	t := s.cfg.Catalog.Current()
	for n := range state.Nodes.All(s.cfg.Store.Snapshot()) {
		status := memberAlive
		switch seen := t.NodeByID(n.ID); {
		case n.Status == model.NodeLeft:
			status = memberLeft
		case seen == nil || findCheck(t, seen, discovery.SerfHealth).Status == discovery.Critical:
			status = memberFailed
		}
		out = append(out, s.member(n.Name, n.ID, n.Addr, n.Role == model.RoleMaster, status))
	}
	return s.respond(w, r, out)
}

// local lists the endpoints on this node; the service "consul" is the
// catalog's, not the agent's.
func (s *Server) local() []*discovery.Endpoint {
	var out []*discovery.Endpoint
	for _, e := range s.cfg.Catalog.Current().OnNode(s.cfg.Node) {
		if e.Service != "consul" || e.Task != "" {
			out = append(out, e)
		}
	}
	return out
}

func (s *Server) agentServices(w http.ResponseWriter, r *http.Request) error {
	out := map[string]serviceJSON{}
	for _, e := range s.local() {
		out[e.ID] = s.agentServiceOf(e)
	}
	out, err := filter(r.URL.Query().Get("filter"), out)
	if err != nil {
		return err
	}
	return s.respond(w, r, out)
}

func (s *Server) agentServiceOf(e *discovery.Endpoint) serviceJSON {
	svc := serviceOf(e)
	svc.CreateIndex, svc.ModifyIndex, svc.Datacenter = 0, 0, s.cfg.Datacenter
	return svc
}

// agentService shows one service; ?hash= waits until it differs from what the
// client knows.
func (s *Server) agentService(w http.ResponseWriter, r *http.Request) error {
	id, hash := rest(r, "/v1/agent/service/"), r.URL.Query().Get("hash")
	o, err := readOptions(r)
	if err != nil {
		return err
	}
	deadline := time.NewTimer(o.wait)
	defer deadline.Stop()
	if hash != "" && s.blocking.Add(1) > maxBlocking {
		s.blocking.Add(-1)
		return fail(http.StatusTooManyRequests, "Too many blocking queries on this node: spread clients over more nodes")
	} else if hash != "" {
		defer s.blocking.Add(-1)
	}
	for {
		_, changed := s.cfg.Catalog.View()
		svc := s.findLocal(id)
		if svc == nil {
			return fail(http.StatusNotFound, "unknown service ID: "+id)
		}
		out := s.agentServiceOf(svc)
		body, err := encode(out)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(body)
		out.ContentHash = hex.EncodeToString(sum[:8])
		if hash != out.ContentHash {
			w.Header().Set("X-Consul-ContentHash", out.ContentHash)
			return s.respond(w, r, out)
		}
		select {
		case <-changed:
		case <-deadline.C:
			hash = ""
		case <-r.Context().Done():
			return r.Context().Err()
		}
	}
}

func (s *Server) findLocal(id string) *discovery.Endpoint {
	for _, e := range s.local() {
		if e.ID == id {
			return e
		}
	}
	return nil
}

func (s *Server) agentChecks(w http.ResponseWriter, r *http.Request) error {
	out := map[string]checkJSON{}
	t := s.cfg.Catalog.Current()
	if n := t.Node(s.cfg.Node); n != nil {
		for _, c := range n.Checks {
			if c.ID != discovery.SerfHealth {
				out[c.ID] = checkOf(c)
			}
		}
	}
	for _, e := range s.local() {
		for _, c := range e.Checks {
			out[c.ID] = checkOf(c)
		}
	}
	out, err := filter(r.URL.Query().Get("filter"), out)
	if err != nil {
		return err
	}
	return s.respond(w, r, out)
}

type agentHealthJSON struct {
	AggregatedStatus string
	Service          serviceJSON
	Checks           []checkJSON
}

func (s *Server) agentHealth(e *discovery.Endpoint) agentHealthJSON {
	n := s.cfg.Catalog.Current().Node(e.Node)
	return agentHealthJSON{string(e.Status), s.agentServiceOf(e), endpointChecks(e, n)}
}

// healthCode is the status code that tells health to load balancers.
func healthCode(status discovery.Status) int {
	switch status {
	case discovery.Passing:
		return http.StatusOK
	case discovery.Warning:
		return http.StatusTooManyRequests
	}
	return http.StatusServiceUnavailable
}

func (s *Server) agentHealthID(w http.ResponseWriter, r *http.Request) error {
	id := rest(r, "/v1/agent/health/service/id/")
	e := s.findLocal(id)
	if e == nil {
		return fail(http.StatusNotFound, fmt.Sprintf("ServiceId %s not found", id))
	}
	return s.healthAnswer(w, r, e.Status, s.agentHealth(e))
}

func (s *Server) agentHealthName(w http.ResponseWriter, r *http.Request) error {
	name := rest(r, "/v1/agent/health/service/name/")
	out := []agentHealthJSON{}
	worst := discovery.Passing
	for _, e := range s.local() {
		if e.Service == name {
			out = append(out, s.agentHealth(e))
			worst = discovery.Worse(worst, e.Status)
		}
	}
	if len(out) == 0 {
		return fail(http.StatusNotFound, fmt.Sprintf("ServiceName %s Not Found", name))
	}
	return s.healthAnswer(w, r, worst, out)
}

func (s *Server) healthAnswer(w http.ResponseWriter, r *http.Request, status discovery.Status, value any) error {
	if r.URL.Query().Get("format") == "text" {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(healthCode(status))
		w.Write([]byte(status))
		return nil
	}
	body, err := encode(value)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	s.write(w, r, healthCode(status), body)
	return nil
}
