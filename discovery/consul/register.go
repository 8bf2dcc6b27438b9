package consul

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"time"

	"appliance/discovery"
	"appliance/discovery/check"
	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
)

// checkRequest is a check as clients send it.
type checkRequest struct {
	ID, CheckID, Name, Notes, Status, ServiceID string
	Output                                      string

	TTL, Interval, Timeout         duration
	DeregisterCriticalServiceAfter duration
	HTTP, Method, TCP              string
	Header                         map[string][]string

	// What this node does not run.
	Args, ScriptArgs                                       []string
	Script, GRPC, UDP, H2PING, AliasNode, AliasService     string
	DockerContainerID, OSService                           string
	TLSSkipVerify, TCPUseTLS, DisableRedirects, GRPCUseTLS bool
	Body                                                   string
}

func (c *checkRequest) unsupported() string {
	for name, used := range map[string]bool{
		"Args": len(c.Args)+len(c.ScriptArgs) > 0, "Script": c.Script != "", "GRPC": c.GRPC != "", "UDP": c.UDP != "", "H2PING": c.H2PING != "",
		"AliasNode": c.AliasNode != "", "AliasService": c.AliasService != "", "DockerContainerID": c.DockerContainerID != "",
		"OSService": c.OSService != "", "TLSSkipVerify": c.TLSSkipVerify, "TCPUseTLS": c.TCPUseTLS, "Body": c.Body != "",
	} {
		if used {
			return name
		}
	}
	return ""
}

// row makes the stored check. id and name are used where the request has none.
func (c *checkRequest) row(node, id, name string) (model.ExternalCheck, error) {
	out := model.ExternalCheck{
		Node: node, ID: first(c.CheckID, c.ID, id), Name: first(c.Name, name), Service: c.ServiceID, Status: first(c.Status, "critical"),
		Notes: c.Notes, Output: check.Bound(c.Output), UpdatedAt: time.Now(),
		Spec: model.CheckDefinition{
			HTTP: c.HTTP, Method: c.Method, Header: c.Header, TCP: c.TCP, TTL: model.Duration(c.TTL),
			Interval: model.Duration(c.Interval), Timeout: model.Duration(c.Timeout),
			DeregisterAfter: model.Duration(c.DeregisterCriticalServiceAfter),
		},
	}
	bad := func(why string) (model.ExternalCheck, error) {
		return out, fail(http.StatusBadRequest, "Invalid check: "+why)
	}
	kinds := 0
	for kind, used := range map[string]bool{"http": c.HTTP != "", "tcp": c.TCP != "", "ttl": c.TTL > 0} {
		if used {
			kinds++
			out.Type = kind
		}
	}
	switch what := c.unsupported(); {
	case what != "":
		return bad(what + " is not supported: use HTTP, TCP or TTL")
	case kinds > 1:
		return bad("HTTP, TCP and TTL exclude each other")
	case kinds == 0:
		return bad("TTL must be > 0 for TTL checks")
	case out.Type != "ttl" && c.Interval <= 0:
		return bad("Interval must be > 0 for Script, HTTP, H2PING, TCP, UDP or OSService checks")
	}
	switch out.Status {
	case "passing", "warning", "critical":
	default:
		return bad(fmt.Sprintf("Invalid Status %q: it must be passing, warning or critical", out.Status))
	}
	out.Spec.Interval = max(out.Spec.Interval, 0)
	return out, nil
}

func first(words ...string) string {
	for _, w := range words {
		if w != "" {
			return w
		}
	}
	return ""
}

type serviceRequest struct {
	ID, Name, Address string
	Service           string // how the catalog calls the name
	Tags              []string
	Port              int
	Meta              map[string]string
	Weights           *struct{ Passing, Warning int }
	Check             *checkRequest
	Checks            []checkRequest
	Kind              string
}

func (q *serviceRequest) row(node, addr string) (*model.ExternalService, error) {
	out := &model.ExternalService{
		Node: node, NodeAddr: addr, ID: first(q.ID, q.Name, q.Service), Name: first(q.Name, q.Service), Tags: q.Tags,
		Address: q.Address, Port: q.Port, Labels: q.Meta,
	}
	if q.Weights != nil {
		out.Weights = [2]int{q.Weights.Passing, q.Weights.Warning}
	}
	switch {
	case out.Name == "":
		return nil, fail(http.StatusBadRequest, "Missing service name")
	case q.Kind != "":
		return nil, fail(http.StatusBadRequest, "Services of kind "+strconv.Quote(q.Kind)+" are part of Consul's service mesh, which is not provided")
	case q.Address == "0.0.0.0" || q.Address == "::" || q.Address == "[::]":
		return nil, fail(http.StatusBadRequest, "Invalid service address")
	case q.Port < 0 || q.Port > 65535:
		return nil, fail(http.StatusBadRequest, fmt.Sprintf("Invalid port %d", q.Port))
	}
	return out, nil
}

func (s *Server) agentRegisterService(w http.ResponseWriter, r *http.Request) error {
	var req serviceRequest
	if err := decode(r, &req); err != nil {
		return err
	}
	svc, err := req.row(s.cfg.Node, s.cfg.Addr)
	if err != nil {
		return err
	}
	checks := req.Checks
	if req.Check != nil {
		checks = append([]checkRequest{*req.Check}, checks...)
	}
	cmd := &command.RegisterService{Service: svc, ReplaceChecks: r.URL.Query().Has("replace-existing-checks")}
	for i := range checks {
		c := &checks[i]
		id := "service:" + svc.ID
		if len(checks) > 1 {
			id += ":" + strconv.Itoa(i+1)
		}
		c.ServiceID = svc.ID
		row, err := c.row(s.cfg.Node, id, "Service '"+svc.Name+"' check")
		if err != nil {
			return err
		}
		s.keepStatus(&row, c.Status)
		cmd.Checks = append(cmd.Checks, row)
	}
	if !cmd.ReplaceChecks && s.registered(cmd) {
		return nil
	}
	_, err = s.propose(r.Context(), cmd)
	return err
}

// keepStatus carries the status of a check over when it is registered again
// without one.
func (s *Server) keepStatus(row *model.ExternalCheck, asked string) {
	old := state.Checks.Get(s.cfg.Store.Snapshot(), row.Key())
	if old != nil && asked == "" {
		row.Status, row.Output, row.UpdatedAt = old.Status, old.Output, old.UpdatedAt
	}
}

// registered reports whether a registration says nothing new: tools that
// register all services again and again must not wake every watch.
func (s *Server) registered(c *command.RegisterService) bool {
	snap := s.cfg.Store.Snapshot()
	if c.Service != nil {
		old := state.Services.Get(snap, c.Service.Key())
		if old == nil {
			return false
		}
		was, is := *old, *c.Service
		was.Meta, is.Meta = model.Meta{}, model.Meta{}
		if !equalJSON(was, is) {
			return false
		}
	}
	for i := range c.Checks {
		old := state.Checks.Get(snap, c.Checks[i].Key())
		if old == nil {
			return false
		}
		was, is := *old, c.Checks[i]
		was.Meta, is.Meta, was.UpdatedAt, is.UpdatedAt = model.Meta{}, model.Meta{}, time.Time{}, time.Time{}
		if !equalJSON(was, is) {
			return false
		}
	}
	return true
}

// equalJSON compares two rows as the log would store them, where an empty list
// and none are the same.
func equalJSON(a, b any) bool {
	x, err1 := encode(a)
	y, err2 := encode(b)
	return err1 == nil && err2 == nil && reflect.DeepEqual(x, y)
}

func (s *Server) agentDeregisterService(w http.ResponseWriter, r *http.Request) error {
	id := rest(r, "/v1/agent/service/deregister/")
	if e := s.findLocal(id); e != nil && e.Task != "" {
		return fail(http.StatusBadRequest, fmt.Sprintf("Service %q belongs to task %s of %s and ends with it: stop or scale the app", id, e.Task, e.App))
	}
	_, err := s.propose(r.Context(), &command.DeregisterService{Node: s.cfg.Node, ID: id})
	return err
}

func (s *Server) agentRegisterCheck(w http.ResponseWriter, r *http.Request) error {
	var req checkRequest
	if err := decode(r, &req); err != nil {
		return err
	}
	if req.Name == "" {
		return fail(http.StatusBadRequest, "Missing check name")
	}
	row, err := req.row(s.cfg.Node, req.Name, req.Name)
	if err != nil {
		return err
	}
	s.keepStatus(&row, req.Status)
	cmd := &command.RegisterService{Checks: []model.ExternalCheck{row}}
	if s.registered(cmd) {
		return nil
	}
	_, err = s.propose(r.Context(), cmd)
	return err
}

func (s *Server) agentDeregisterCheck(w http.ResponseWriter, r *http.Request) error {
	_, err := s.propose(r.Context(), &command.DeregisterCheck{Node: s.cfg.Node, ID: rest(r, "/v1/agent/check/deregister/")})
	return err
}

// agentCheckTTL is a heartbeat with a fixed status.
func (s *Server) agentCheckTTL(prefix, status string) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		return s.heartbeat(r, rest(r, prefix), status, r.URL.Query().Get("note"))
	}
}

func (s *Server) agentCheckUpdate(w http.ResponseWriter, r *http.Request) error {
	var req struct{ Status, Output string }
	if err := decode(r, &req); err != nil {
		return err
	}
	switch req.Status {
	case "passing", "warning", "critical":
	default:
		return fail(http.StatusBadRequest, fmt.Sprintf("Invalid check status: '%s'", req.Status))
	}
	return s.heartbeat(r, rest(r, "/v1/agent/check/update/"), req.Status, req.Output)
}

func (s *Server) heartbeat(r *http.Request, id, status, output string) error {
	if s.cfg.Checks == nil {
		return fail(http.StatusInternalServerError, "This node runs no checks")
	}
	ctx, cancel := context.WithTimeout(r.Context(), writeTimeout)
	defer cancel()
	if err := s.cfg.Checks.Update(ctx, id, status, output); err != nil {
		return writeError(err)
	}
	return s.cfg.Catalog.Fresh(ctx)
}

func (s *Server) agentServiceMaintenance(w http.ResponseWriter, r *http.Request) error {
	id := rest(r, "/v1/agent/service/maintenance/")
	if id == "" {
		return fail(http.StatusBadRequest, "Missing service ID")
	}
	e := s.findLocal(id)
	if e == nil {
		return fail(http.StatusNotFound, fmt.Sprintf("Unknown service ID %q. Ensure that the service ID is passed, not the service name.", id))
	}
	if e.Task != "" {
		return fail(http.StatusBadRequest, fmt.Sprintf("Service %q belongs to task %s of %s: scale the app or drain its node", id, e.Task, e.App))
	}
	return s.maintenance(r, model.ExternalCheck{ID: "_service_maintenance:" + id, Name: "Service Maintenance Mode", Service: id},
		"Maintenance mode is enabled for this service, but no reason was provided. This is a default message.")
}

func (s *Server) agentMaintenance(w http.ResponseWriter, r *http.Request) error {
	return s.maintenance(r, model.ExternalCheck{ID: discovery.NodeMaintenance, Name: "Node Maintenance Mode"},
		"Maintenance mode is enabled for this node, but no reason was provided. This is a default message.")
}

// maintenance adds or removes a critical check.
func (s *Server) maintenance(r *http.Request, row model.ExternalCheck, reason string) error {
	q := r.URL.Query()
	if q.Get("enable") == "" {
		return fail(http.StatusBadRequest, "Missing value for enable")
	}
	enable, err := strconv.ParseBool(q.Get("enable"))
	if err != nil {
		return fail(http.StatusBadRequest, fmt.Sprintf("Invalid value for enable: %q", q.Get("enable")))
	}
	row.Node, row.Status, row.Type, row.UpdatedAt = s.cfg.Node, "critical", "maintenance", time.Now()
	row.Notes = first(q.Get("reason"), reason)
	row.Output = row.Notes
	if enable {
		_, err = s.propose(r.Context(), &command.RegisterService{Checks: []model.ExternalCheck{row}})
		return err
	}
	if state.Checks.Get(s.cfg.Store.Snapshot(), row.Key()) == nil {
		return nil
	}
	_, err = s.propose(r.Context(), &command.DeregisterCheck{Node: row.Node, ID: row.ID})
	return err
}
