package consul

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"appliance/discovery"
	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
)

// Bounds and defaults of sessions, as in Consul.
const (
	minSessionTTL    = 10 * time.Second
	maxSessionTTL    = 24 * time.Hour
	defaultLockDelay = 15 * time.Second
	maxLockDelay     = 60 * time.Second
)

type sessionJSON struct {
	ID            string
	Name          string
	Node          string
	LockDelay     time.Duration
	Behavior      string
	TTL           string
	NodeChecks    []string
	ServiceChecks []any
	CreateIndex   uint64
	ModifyIndex   uint64
}

func sessionOf(row *model.Session) sessionJSON {
	out := sessionJSON{
		ID: row.ID, Name: row.Name, Node: row.Node, LockDelay: row.LockDelay, Behavior: row.Behavior,
		NodeChecks: list(row.Checks), CreateIndex: row.CreateIndex, ModifyIndex: row.ModifyIndex,
	}
	if row.TTL > 0 {
		out.TTL = row.TTL.String()
	}
	return out
}

// lockDelay reads a duration; numbers below 1000 are seconds, as old clients
// send them.
type lockDelay time.Duration

func (d *lockDelay) UnmarshalJSON(b []byte) error {
	var v duration
	if err := v.UnmarshalJSON(b); err != nil {
		return err
	}
	if v < 1000 && len(b) > 0 && b[0] != '"' {
		v *= duration(time.Second)
	}
	*d = lockDelay(v)
	return nil
}

type sessionRequest struct {
	Name, Node    string
	LockDelay     *lockDelay
	Behavior, TTL string
	Checks        []string
	NodeChecks    *[]string
	ServiceChecks []struct{ ID string }
}

// newID is a random UUID (RFC 9562, version 4).
func newID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func (s *Server) sessionCreate(w http.ResponseWriter, r *http.Request) error {
	var req sessionRequest
	if err := decode(r, &req); err != nil {
		return err
	}
	row, err := s.session(req)
	if err != nil {
		return err
	}
	if _, err := s.propose(r.Context(), &command.PutSession{Session: row}); err != nil {
		return err
	}
	return s.respond(w, r, map[string]string{"ID": row.ID})
}

// session fills in the defaults and checks the request.
func (s *Server) session(req sessionRequest) (model.Session, error) {
	row := model.Session{
		ID: newID(), Name: req.Name, Node: req.Node, Behavior: req.Behavior, LockDelay: defaultLockDelay,
		Checks: []string{discovery.SerfHealth}, RenewedAt: time.Now(),
	}
	if row.Node == "" {
		row.Node = s.cfg.Node
	}
	if req.NodeChecks != nil {
		row.Checks = *req.NodeChecks
	} else if req.Checks != nil {
		row.Checks = req.Checks
	}
	for _, c := range req.ServiceChecks {
		row.Checks = append(row.Checks, c.ID)
	}
	if req.LockDelay != nil {
		row.LockDelay = min(max(time.Duration(*req.LockDelay), 0), maxLockDelay)
	}
	switch row.Behavior {
	case "":
		row.Behavior = "release"
	case "release", "delete":
	default:
		return row, fail(http.StatusBadRequest, fmt.Sprintf("Invalid Behavior setting '%s'", row.Behavior))
	}
	if req.TTL != "" {
		ttl, err := time.ParseDuration(req.TTL)
		if err != nil {
			return row, fail(http.StatusBadRequest, fmt.Sprintf("Request TTL decode failed: %v", err))
		}
		if ttl != 0 && (ttl < minSessionTTL || ttl > maxSessionTTL) {
			return row, fail(http.StatusInternalServerError, fmt.Sprintf("Invalid Session TTL '%d', must be between [%v=%v]", ttl, minSessionTTL, maxSessionTTL))
		}
		row.TTL = ttl
	}
	return row, s.sessionChecks(row)
}

// sessionChecks refuses a session whose checks would end it at once.
func (s *Server) sessionChecks(row model.Session) error {
	t := s.cfg.Catalog.Current()
	if t.Node(row.Node) == nil {
		return fail(http.StatusInternalServerError, "Missing node registration")
	}
	if why := sessionEnds(t, &row); why != "" {
		return fail(http.StatusInternalServerError, why)
	}
	return nil
}

// sessionEnds says why the health of its node and checks ends a session, ""
// if it does not.
func sessionEnds(t *discovery.Table, row *model.Session) string {
	n := t.Node(row.Node)
	if n == nil {
		return "node " + row.Node + " is not registered"
	}
	for _, id := range row.Checks {
		c := findCheck(t, n, id)
		switch {
		case c == nil && id == discovery.SerfHealth && !n.Cluster():
			// nobody watches the health of a foreign node
		case c == nil:
			return fmt.Sprintf("Missing check '%s' registration", id)
		case c.Status == discovery.Critical:
			return fmt.Sprintf("Check '%s' is in %s state", id, c.Status)
		}
	}
	return ""
}

// findCheck looks for a check among those of the node and its services.
func findCheck(t *discovery.Table, n *discovery.Node, id string) *discovery.Check {
	for _, c := range n.Checks {
		if c.ID == id {
			return c
		}
	}
	for _, e := range t.OnNode(n.Name) {
		for _, c := range e.Checks {
			if c.ID == id {
				return c
			}
		}
	}
	return nil
}

func (s *Server) sessionDestroy(w http.ResponseWriter, r *http.Request) error {
	id := rest(r, "/v1/session/destroy/")
	if id == "" {
		return fail(http.StatusBadRequest, "Missing session")
	}
	if _, err := s.propose(r.Context(), &command.DestroySession{ID: id, At: time.Now()}); err != nil {
		return err
	}
	return s.respond(w, r, true)
}

func (s *Server) sessionRenew(w http.ResponseWriter, r *http.Request) error {
	id := rest(r, "/v1/session/renew/")
	if id == "" {
		return fail(http.StatusBadRequest, "Missing session")
	}
	if _, err := s.propose(r.Context(), &command.RenewSession{ID: id, At: time.Now()}); err != nil {
		if model.CodeOf(err) == model.CodeNotFound {
			return fail(http.StatusNotFound, fmt.Sprintf("Session id '%s' not found", id))
		}
		return err
	}
	row := state.Sessions.Get(s.cfg.Store.Snapshot(), id)
	if row == nil {
		return fail(http.StatusNotFound, fmt.Sprintf("Session id '%s' not found", id))
	}
	return s.respond(w, r, []sessionJSON{sessionOf(row)})
}

// sessions answers a list of sessions.
func (s *Server) sessions(w http.ResponseWriter, r *http.Request, keep func(*model.Session) bool) error {
	return s.read(w, r, query{tables: []string{state.Sessions.Name}, run: func(v view) (any, uint64, bool, error) {
		out := []sessionJSON{}
		for row := range state.Sessions.All(v.snap) {
			if keep(row) {
				out = append(out, sessionOf(row))
			}
		}
		return out, 0, true, nil
	}})
}

func (s *Server) sessionInfo(w http.ResponseWriter, r *http.Request) error {
	id := rest(r, "/v1/session/info/")
	if id == "" {
		return fail(http.StatusBadRequest, "Missing session")
	}
	return s.sessions(w, r, func(row *model.Session) bool { return row.ID == id })
}

func (s *Server) sessionNode(w http.ResponseWriter, r *http.Request) error {
	node := rest(r, "/v1/session/node/")
	if node == "" {
		return fail(http.StatusBadRequest, "Missing node name")
	}
	return s.sessions(w, r, func(row *model.Session) bool { return row.Node == node })
}

func (s *Server) sessionList(w http.ResponseWriter, r *http.Request) error {
	return s.sessions(w, r, func(*model.Session) bool { return true })
}

var _ json.Unmarshaler = (*lockDelay)(nil)
