package consul

import (
	"net"
	"net/http"

	"appliance/discovery"
	"appliance/node/model"
	"appliance/raft/state"
)

func (s *Server) statusLeader(w http.ResponseWriter, r *http.Request) error {
	return s.respond(w, r, s.leader())
}

func (s *Server) statusPeers(w http.ResponseWriter, r *http.Request) error {
	out := []string{}
	for _, n := range s.masters() {
		out = append(out, net.JoinHostPort(n.Addr, serverPort))
	}
	return s.respond(w, r, out)
}

func (s *Server) masters() (out []*discovery.Node) {
	for _, n := range s.cfg.Catalog.Current().Nodes() {
		if n.Role == model.RoleMaster {
			out = append(out, n)
		}
	}
	return out
}

func (s *Server) raftConfiguration(w http.ResponseWriter, r *http.Request) error {
	type server struct {
		ID              string
		Node            string
		Address         string
		Leader          bool
		ProtocolVersion string
		Voter           bool
		LastIndex       uint64
	}
	servers := []server{}
	leader := s.leader()
	for _, n := range s.masters() {
		addr := net.JoinHostPort(n.Addr, serverPort)
		servers = append(servers, server{n.ID, n.Name, addr, addr == leader, "3", true, s.cfg.Store.Index()})
	}
	return s.respond(w, r, struct {
		Servers []server
		Index   uint64
	}{servers, s.cfg.Store.Index()})
}

// caRoots shows the cluster's CA: the official client's test-suite waits for a
// root, and some tools look for one.
func (s *Server) caRoots(w http.ResponseWriter, r *http.Request) error {
	type root struct {
		ID, Name                 string
		SerialNumber             uint64
		SigningKeyID, RootCert   string
		IntermediateCerts        []string
		Active                   bool
		CreateIndex, ModifyIndex uint64
	}
	out := struct {
		ActiveRootID string
		TrustDomain  string
		Roots        []root
	}{Roots: []root{}}
	for c := range state.Clusters.All(s.cfg.Store.Snapshot()) {
		out.ActiveRootID, out.TrustDomain = c.ID, c.ID+".consul"
		out.Roots = append(out.Roots, root{
			ID: c.ID, Name: "Cluster CA", SerialNumber: 1, RootCert: string(c.CACert), IntermediateCerts: []string{},
			Active: true, CreateIndex: c.CreateIndex, ModifyIndex: c.ModifyIndex,
		})
	}
	s.metaHeaders(w, max(1, s.cfg.Store.Snapshot().TableIndex(state.Clusters.Name)), "leader")
	return s.respond(w, r, out)
}

func (s *Server) snapshot(http.ResponseWriter, *http.Request) error {
	return fail(http.StatusNotImplemented, "Snapshots in Consul's format are not made: the state is not Consul's. Use: appliance snapshot")
}
