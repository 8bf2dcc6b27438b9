package consul

import (
	"net/http"
	"time"

	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
)

// catalogCheck is a check as the catalog takes it: an outcome, with its
// definition for the reader only. Nobody runs it.
type catalogCheck struct {
	Node, CheckID, Name, Status, Notes, Output, ServiceID, Type string
}

type registerRequest struct {
	ID, Node, Address string
	NodeMeta          map[string]string
	Service           *serviceRequest
	Check             *catalogCheck
	Checks            []catalogCheck
	SkipNodeUpdate    bool
}

// catalogRegister writes the entries of an external registrar.
func (s *Server) catalogRegister(w http.ResponseWriter, r *http.Request) error {
	var req registerRequest
	if err := decode(r, &req); err != nil {
		return err
	}
	if req.Node == "" || (req.Address == "" && !req.SkipNodeUpdate) {
		return fail(http.StatusBadRequest, "Must provide node and address")
	}
	commands, err := s.registration(req)
	if err != nil {
		return err
	}
	if len(commands) > 0 {
		if err := s.together(r, commands); err != nil {
			return err
		}
	}
	return s.respond(w, r, true)
}

func (s *Server) registration(req registerRequest) ([]command.Command, error) {
	var out []command.Command
	if n := s.cfg.Catalog.Current().Node(req.Node); (n == nil || !n.Cluster()) && !req.SkipNodeUpdate {
		record := &command.RegisterService{Service: &model.ExternalService{Node: req.Node, NodeAddr: req.Address, Labels: req.NodeMeta}}
		if !s.registered(record) {
			out = append(out, record)
		}
	}
	cmd := &command.RegisterService{}
	if req.Service != nil {
		svc, err := req.Service.row(req.Node, req.Address)
		if err != nil {
			return nil, err
		}
		cmd.Service = svc
	}
	checks := req.Checks
	if req.Check != nil {
		checks = append(checks, *req.Check)
	}
	for _, c := range checks {
		row := model.ExternalCheck{
			Node: first(c.Node, req.Node), ID: first(c.CheckID, c.Name), Name: c.Name, Service: c.ServiceID, Status: first(c.Status, "critical"),
			Notes: c.Notes, Output: c.Output, Type: c.Type, UpdatedAt: time.Now(),
		}
		if row.ID == "" {
			return nil, fail(http.StatusBadRequest, "Must provide the id or the name of a check")
		}
		if row.Node != req.Node {
			return nil, fail(http.StatusBadRequest, "check node \""+row.Node+"\" does not match node \""+req.Node+"\"")
		}
		cmd.Checks = append(cmd.Checks, row)
	}
	if (cmd.Service != nil || len(cmd.Checks) > 0) && !s.registered(cmd) {
		out = append(out, cmd)
	}
	return out, nil
}

// together commits commands in one entry and reports the first refusal.
func (s *Server) together(r *http.Request, commands []command.Command) error {
	if len(commands) == 1 {
		_, err := s.propose(r.Context(), commands[0])
		return err
	}
	batch, err := command.NewBatch(commands...)
	if err != nil {
		return err
	}
	res, err := s.propose(r.Context(), batch)
	if err != nil {
		return err
	}
	var each []command.Result
	if err := res.Decode(&each); err != nil {
		return err
	}
	for _, one := range each {
		if one.Err != nil {
			return one.Err
		}
	}
	return nil
}

// catalogDeregister removes a service, a check, or a node with all of them.
// What is not there is no error.
func (s *Server) catalogDeregister(w http.ResponseWriter, r *http.Request) error {
	var req struct{ Node, ServiceID, CheckID string }
	if err := decode(r, &req); err != nil {
		return err
	}
	if req.Node == "" {
		return fail(http.StatusBadRequest, "Must provide node")
	}
	snap := s.cfg.Store.Snapshot()
	var commands []command.Command
	switch {
	case req.ServiceID != "":
		if state.Services.Get(snap, req.Node+"\x00"+req.ServiceID) != nil {
			commands = append(commands, &command.DeregisterService{Node: req.Node, ID: req.ServiceID})
		}
	case req.CheckID != "":
		if state.Checks.Get(snap, req.Node+"\x00"+req.CheckID) != nil {
			commands = append(commands, &command.DeregisterCheck{Node: req.Node, ID: req.CheckID})
		}
	default:
		for c := range state.Checks.By(snap, "node", req.Node) {
			commands = append(commands, &command.DeregisterCheck{Node: req.Node, ID: c.ID})
		}
		for svc := range state.Services.By(snap, "node", req.Node) {
			commands = append(commands, &command.DeregisterService{Node: req.Node, ID: svc.ID})
		}
	}
	if len(commands) > 0 {
		if err := s.together(r, commands); err != nil {
			return err
		}
	}
	return s.respond(w, r, true)
}
