package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"

	"appliance/discovery"
	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
)

// Cluster is what the API asks of the node besides the replicated state.
type Cluster interface {
	// Self is this node's id.
	Self() string
	// Leader is the node id of the leader, "" if none is known.
	Leader() string
	// Fresh reports whether the state is in touch with a master.
	Fresh() bool
	// Sync returns when everything that was acknowledged anywhere before the
	// call is visible in the local state.
	Sync(ctx context.Context) error
	// Confirm is Sync for reads that are answered in any case: it waits a
	// moment. Where nobody confirms, the local state is as of then; zero says
	// that the node has known no leader since it started.
	Confirm(ctx context.Context) (asOf time.Time, confirmed bool)
	Alive(node string) bool
	// Catalog reflects the local state; it waits for that a moment. The error says that it may be older.
	Catalog(ctx context.Context) (*discovery.Table, error)
	VIPHolder() string // node id, "" if not known
	Votes() []string   // ids of the masters that vote
	Warnings() []string
	// Logs streams a task's output file ("stdout" or "stderr") from the node
	// that has it.
	Logs(ctx context.Context, task *model.Task, stream string, follow bool, tail int, w io.Writer) error
	// NewJoinToken and NewAPIToken make secrets; only their hashes are kept.
	NewJoinToken(role model.Role, now time.Time) (secret string, t model.JoinToken, err error)
	NewAPIToken(now time.Time) (secret string, t model.APIToken, err error)
}

// Images answers questions about the cluster's registry.
type Images interface {
	// Labels reads the labels of an image's config.
	Labels(ctx context.Context, repo, digest string) (map[string]string, error)
}

// Authorize decides whether a request may do what it asks. A nil return
// allows it; the error is what the caller gets.
type Authorize func(r *http.Request, need Need) error

// Need is what a request wants to do.
type Need struct {
	Write    bool
	Operator bool   // tokens, nodes
	Deploy   string // environment
}

// Server is the API's handler.
type Server struct {
	Store     *state.Store
	Proposer  command.Proposer // does admission itself
	Cluster   Cluster
	Images    Images
	Secrets   Secrets
	Authorize Authorize
	Version   string
	Upgrade   Upgrader // nil: no such routes
	// Pass hands a request that only masters may carry out to one of them, with
	// the credential of its sender; nil on masters. It answers, or returns why
	// not.
	Pass func(w http.ResponseWriter, r *http.Request) error
	Term func() uint64 // of the last applied entry; nil says 0
	Log  *slog.Logger
	mux  *http.ServeMux
}

// maxBody bounds a request: a spec with generous room.
const maxBody = 1 << 20

// writeTimeout bounds one change from request to commit.
const writeTimeout = 15 * time.Second

// Handler returns the API below Prefix.
func (s *Server) Handler() http.Handler {
	s.mux = http.NewServeMux()
	s.get("/status", s.status)
	s.get("/nodes", s.nodes)
	s.get("/apps", s.apps)
	s.get("/apps/{id...}", s.app)
	s.get("/tasks", s.tasks)
	s.get("/deployments", s.deployments)
	s.get("/deployments/{id}", s.deployment)
	s.get("/releases", s.releases)
	s.get("/services", s.services)
	s.get("/routes", s.routes)
	s.get("/images", s.images)
	s.get("/volumes", s.volumes)
	s.get("/events", s.events)
	s.get("/environments", s.environments)
	s.get("/why", s.why)
	s.raw("GET", "/deployments/{id}/watch", Need{}, s.watch)
	s.raw("GET", "/logs/{task}", Need{}, s.logs)
	post(s, "/deploy", func(r *DeployRequest) Need { return Need{Write: true, Deploy: envOf(r.App, r.Env)} }, s.deploy)
	post(s, "/promote", func(r *PromoteRequest) Need { return Need{Write: true, Deploy: r.To} }, s.promote)
	post(s, "/scale", func(r *ScaleRequest) Need { return Need{Write: true, Deploy: envOf(r.App, r.Env)} }, s.scale)
	post(s, "/rollback", func(r *RollbackRequest) Need { return Need{Write: true, Deploy: envOf(r.App, r.Env)} }, s.rollback)
	post(s, "/restart", func(r *RollbackRequest) Need { return Need{Write: true, Deploy: envOf(r.App, r.Env)} }, s.restart)
	post(s, "/stop", func(r *StopRequest) Need { return Need{Write: true, Deploy: envOf(r.App, r.Env)} }, s.stop)
	post(s, "/leave", func(*struct{}) Need { return operator }, s.leave) // of this node: here
	operate(s, "/drain", s.drain)
	operate(s, "/environments", s.putEnvironment)
	operate(s, "/tokens/join", s.joinToken)
	operate(s, "/tokens/api", s.apiToken)
	s.get("/tokens", s.tokens)
	s.operateRaw("DELETE", "/tokens/{id}", s.revoke)
	s.operateRaw("DELETE", "/nodes/{name}", s.removeNode)
	s.operateRaw("DELETE", "/volumes/{name}", s.removeVolume)
	s.raw("GET", "/audit", Need{Operator: true}, s.current(s.audit))
	s.get("/autopilot", s.autopilot)
	operate(s, "/autopilot", s.setAutopilot)
	s.snapshotRoutes()
	s.trustRoutes()
	s.secretRoutes()
	s.checkupRoutes()
	s.upgradeRoutes()
	s.mux.HandleFunc(Prefix+"/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, model.Errorf(model.CodeNotFound, "there is no %s %s", r.Method, r.URL.Path).Try("see appliance help for what there is"))
	})
	return s.mux
}

// get mounts a reading handler; see current.
func (s *Server) get(path string, fn func(r *http.Request, snap *state.Snapshot) (any, error)) {
	s.raw("GET", path, Need{}, s.current(func(w http.ResponseWriter, r *http.Request) error {
		v, err := fn(r, s.Store.Snapshot())
		if err != nil {
			return err
		}
		return answer(w, http.StatusOK, v)
	}))
}

func (s *Server) raw(method, path string, need Need, fn handler) {
	s.mux.HandleFunc(method+" "+Prefix+path, s.checked(need, fn))
}

// handler answers a request or returns why not.
type handler func(w http.ResponseWriter, r *http.Request) error

// checked is fn for those who may.
func (s *Server) checked(need Need, fn handler) http.HandlerFunc {
	return answered(func(w http.ResponseWriter, r *http.Request) error {
		if err := s.Authorize(r, need); err != nil {
			return err
		}
		return fn(w, r)
	})
}

func answered(fn handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := fn(w, r); err != nil && r.Context().Err() == nil {
			fail(w, err)
		}
	}
}

// post mounts a changing handler with a strict JSON body.
func post[T any](s *Server, path string, need func(*T) Need, fn func(ctx context.Context, req *T) (any, error)) {
	s.mux.HandleFunc("POST "+Prefix+path, decoded(s, need, fn))
}

// decoded is fn for those who may, with a strict JSON body.
func decoded[T any](s *Server, need func(*T) Need, fn func(ctx context.Context, req *T) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		req := new(T)
		if err := strict(http.MaxBytesReader(w, r.Body, maxBody), req); err != nil {
			fail(w, model.Errorf(model.CodeInvalid, "the request cannot be read").Because("%v", err).
				Try("check the spelling of its fields"))
			return
		}
		if err := s.Authorize(r, need(req)); err != nil {
			fail(w, err)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), writeTimeout)
		defer cancel()
		v, err := fn(ctx, req)
		if err != nil {
			fail(w, err)
			return
		}
		if err := answer(w, http.StatusOK, v); err != nil {
			s.Log.Debug("answer not delivered", "err", err)
		}
	}
}

// strict reads exactly one JSON document and refuses fields that v has not.
func strict(body io.Reader, v any) error {
	dec := json.NewDecoder(body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("something follows the JSON document")
	}
	return nil
}

func answer(w http.ResponseWriter, status int, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, err = w.Write(append(raw, '\n'))
	return err
}

var statusOf = map[model.Code]int{
	model.CodeInvalid: 400, model.CodeDenied: 403, model.CodeNotFound: 404, model.CodeConflict: 409,
	model.CodeUnplaceable: 422, model.CodeExhausted: 507, model.CodeUnavailable: 503, model.CodeInternal: 500,
}

// Refuse answers a request with err.
func Refuse(w http.ResponseWriter, err error) { fail(w, err) }

func fail(w http.ResponseWriter, err error) {
	var e *model.Error
	if !errors.As(err, &e) {
		e = model.Errorf(model.CodeInternal, "%v", err)
		if errors.Is(err, context.DeadlineExceeded) {
			e = model.Errorf(model.CodeUnavailable, "the cluster did not answer in time").Because("%v", err).
				Try("look at appliance status: a majority of the masters must be alive")
		}
	}
	status := statusOf[e.Code]
	if status == 0 {
		status = http.StatusInternalServerError // a code of a newer version, come by way of the leader
	}
	_ = answer(w, status, Failure{Error: e}) // the client is gone if this fails
}
