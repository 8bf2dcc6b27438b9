package consul

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"appliance/discovery"
	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
)

// Limits; those that Consul has are the same.
const (
	maxValue    = 512 << 10 // bytes of one KV value
	maxTxnOps   = 128
	maxTxnBody  = 512 << 10
	maxBody     = 1 << 20 // any other request
	maxEvent    = 300     // payload of a user event
	maxBlocking = 16384   // blocking queries at once; each costs a goroutine and some KB
	maxMemo     = 4096    // remembered answers
	maxMemoBody = 64 << 10

	defaultWait  = 5 * time.Minute
	maxWait      = 10 * time.Minute
	writeTimeout = 15 * time.Second
	readTimeout  = 7 * time.Second // of a read index
)

// Updater takes the heartbeats of TTL checks; *check.Runner is one.
type Updater interface {
	Update(ctx context.Context, check, status, output string) error
}

// Config is what the API needs from its node.
type Config struct {
	Store    *state.Store
	Catalog  *discovery.Watcher
	Proposer command.Proposer
	Checks   Updater
	// ReadIndex gives the index that a linearizable read must wait for; an
	// error means that there is no leader to ask.
	ReadIndex func(context.Context) (uint64, error)
	// Leader is the node id of the leader, empty if none is known.
	Leader func() string
	// LastContact tells for how long this node has been without a leader, and
	// whether it is. Catalog and health are then answered from the node's own
	// copy, with a word for it in the headers, unless the request asks for
	// consistency. nil: never.
	LastContact func() (since time.Duration, away bool)
	// Authorize may refuse a request; the text of its error follows
	// "Permission denied". nil allows everything.
	Authorize func(r *http.Request, write bool) error

	NodeID     string
	Node       string // name
	Addr       string // IP address
	Datacenter string // default "dc1"
	Version    string
	// Stale answers catalog and health from this node's copy unless a request
	// asks for more, as Consul's discovery_max_stale does.
	Stale bool
	Log   *slog.Logger
}

// Server is the HTTP handler. Safe for concurrent use.
type Server struct {
	cfg      Config
	routes   *routes
	memo     *memo
	blocking atomic.Int64
}

// New returns the handler of /v1/.
func New(cfg Config) *Server {
	if cfg.Datacenter == "" {
		cfg.Datacenter = "dc1"
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Authorize == nil {
		cfg.Authorize = func(*http.Request, bool) error { return nil }
	}
	s := &Server{cfg: cfg, memo: newMemo()}
	s.routes = s.table()
	return s
}

// failure is an error with its HTTP status; the text is the body.
type failure struct {
	code int
	text string
}

func (f *failure) Error() string { return f.text }

func fail(code int, text string) error { return &failure{code, text} }

// errNoLeader must be a 500 with exactly this text: the client libraries retry
// only on 500.
var errNoLeader = &failure{http.StatusInternalServerError, "No cluster leader"}

// toFailure maps any error to what a client of Consul expects.
func toFailure(err error) *failure {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	code := http.StatusInternalServerError
	switch model.CodeOf(err) {
	case model.CodeNotFound:
		code = http.StatusNotFound
	case model.CodeInvalid, model.CodeConflict:
		code = http.StatusBadRequest
	case model.CodeDenied:
		code = http.StatusForbidden
	case model.CodeExhausted:
		code = http.StatusRequestEntityTooLarge
	case model.CodeUnavailable:
		return errNoLeader
	}
	return &failure{code, err.Error()}
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rt, ok := s.routes.find(r.URL.Path)
	if !ok {
		s.fail(w, fail(http.StatusNotFound, "Invalid URL path: not a recognized HTTP API endpoint"))
		return
	}
	h := rt.methods[r.Method]
	if r.Method == http.MethodHead {
		h = rt.methods[http.MethodGet] // net/http leaves the body out
	}
	if h == nil {
		w.Header().Set("Allow", rt.allow())
		if r.Method == http.MethodOptions {
			return
		}
		s.fail(w, fail(http.StatusMethodNotAllowed, "method "+r.Method+" not allowed"))
		return
	}
	if err := s.admit(r, rt); err != nil {
		s.fail(w, err)
		return
	}
	if err := h(w, r); err != nil {
		s.fail(w, err)
	}
}

// admit checks the token, the datacenter and what only Consul Enterprise has.
func (s *Server) admit(r *http.Request, rt *route) error {
	write := r.Method != http.MethodGet && r.Method != http.MethodHead
	if err := s.cfg.Authorize(r, write); err != nil {
		return fail(http.StatusForbidden, "Permission denied: "+err.Error())
	}
	q := r.URL.Query()
	for _, name := range []string{"dc", "datacenter"} {
		if dc := q.Get(name); dc != "" && dc != s.cfg.Datacenter {
			return fail(http.StatusInternalServerError, "No path to datacenter")
		}
	}
	for _, name := range []string{"ns", "partition", "peer", "sameness-group"} {
		if v := q.Get(name); v != "" && v != "default" {
			return fail(http.StatusBadRequest, "Invalid query parameter: \""+name+"\" - it is a Consul Enterprise feature")
		}
	}
	return nil
}

func (s *Server) fail(w http.ResponseWriter, err error) {
	f := toFailure(err)
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	if h.Get("X-Consul-Index") == "" && f.text == "No path to datacenter" {
		h.Set("X-Consul-Index", "1")
		h.Set("X-Consul-KnownLeader", "false")
	}
	w.WriteHeader(f.code)
	w.Write([]byte(f.text))
}

// propose commits a write and waits until the catalog of this node shows it.
func (s *Server) propose(ctx context.Context, c command.Command) (command.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	res, err := s.cfg.Proposer.Propose(ctx, c)
	if err != nil {
		return res, writeError(err)
	}
	if res.Err != nil {
		return res, res.Err
	}
	if err := s.cfg.Store.WaitIndex(ctx, res.Index); err != nil {
		return res, writeError(err)
	}
	if err := s.cfg.Catalog.Fresh(ctx); err != nil {
		return res, writeError(err)
	}
	return res, nil
}

// writeError hides the transport's words behind those that clients retry on,
// unless it is an answer about the write itself.
func writeError(err error) error {
	switch model.CodeOf(err) {
	case model.CodeUnavailable:
		return errNoLeader
	case model.CodeInternal:
		return fail(http.StatusInternalServerError, "rpc error making call: "+err.Error())
	}
	return err
}

// leader is the address of the leader as Consul prints it, "" if none.
func (s *Server) leader() string {
	if s.cfg.Leader == nil {
		return ""
	}
	id := s.cfg.Leader()
	if n := s.cfg.Catalog.Current().NodeByID(id); id != "" && n != nil {
		return net.JoinHostPort(n.Addr, serverPort)
	}
	return ""
}

// serverPort is the port that Consul's servers would have; it only serves to
// print addresses in the form that clients know.
const serverPort = "8300"
