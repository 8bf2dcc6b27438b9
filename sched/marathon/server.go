// Package marathon speaks the REST API v2 of Marathon (1.4 and later) over the
// replicated state: existing templates, scripts and load balancers go on
// working. Any node answers; writes go through the Proposer.
//
// What differs from Marathon is in ../DESIGN.md.
package marathon

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
)

const (
	// maxBody bounds a request; the log takes entries of 1 MiB.
	maxBody = 512 << 10
	// writeTimeout bounds a proposal.
	writeTimeout = 20 * time.Second
	// Version is what we say we are: clients enable features by it.
	Version = "1.4.14"
	// timeFormat is that of versions and of all times in answers.
	timeFormat = "2006-01-02T15:04:05.000Z"
)

// Server is the http.Handler. Fields are set before the first request.
type Server struct {
	Store    *state.Store
	Proposer command.Proposer
	NewID    func() string // ids of deployments
	Log      *slog.Logger
	// DefaultEnv names the environment that takes apps whose id does not begin
	// with one; nil or "" refuses them.
	DefaultEnv func() string
	// Leader is host:port of the leading master, "" if there is none; nil
	// means unknown.
	Leader func() string
	// Admit looks at a valid spec once more before it is accepted and resolves
	// its image to a digest; nil accepts everything as it is.
	Admit func(ctx context.Context, spec *model.AppSpec) (digest string, err error)

	streams atomic.Int32 // open event streams
}

func (s *Server) defaultEnv() string {
	if s.DefaultEnv == nil {
		return ""
	}
	return s.DefaultEnv()
}

// call is one request with its answer.
type call struct {
	*Server
	w    http.ResponseWriter
	r    *http.Request
	snap *state.Snapshot
	now  time.Time
}

// ServeHTTP implements http.Handler for /v2/..., /ping and /metrics.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	c := &call{Server: s, w: w, r: r, snap: s.Store.Snapshot(), now: time.Now().UTC()}
	if s.Leader != nil {
		if l := s.Leader(); l != "" {
			w.Header().Set("X-Marathon-Leader", "http://"+l)
		}
	}
	if err := c.route(); err != nil {
		c.fail(err)
	}
}

// route finds the resource. Ids are greedy and may have doubled slashes, so
// the standard mux does not fit.
func (c *call) route() error {
	p := path.Clean("/" + c.r.URL.Path)
	resource, rest, _ := strings.Cut(strings.TrimPrefix(p, "/v2/"), "/")
	if !strings.HasPrefix(p, "/v2/") {
		resource, rest = p, ""
	}
	switch resource {
	case "apps":
		return c.apps(rest)
	case "groups":
		return c.groups(rest)
	case "deployments":
		return c.deployments(rest)
	case "tasks":
		return c.tasks(rest)
	case "queue":
		return c.queue(rest)
	case "info":
		return c.get(c.info)
	case "leader":
		return c.get(c.leader)
	case "events":
		return c.get(c.events)
	case "plugins":
		return c.get(func() error { return c.reply(http.StatusOK, map[string]any{"plugins": []any{}}) })
	case "/ping":
		return c.get(c.ping)
	case "/metrics":
		return c.get(c.metrics)
	}
	return notFound("URI not found: %s", p)
}

func (c *call) get(f func() error) error {
	if c.r.Method != http.MethodGet && c.r.Method != http.MethodHead {
		return errMethod
	}
	return f()
}

func (c *call) reply(status int, body any) error {
	c.w.Header().Set("Content-Type", "application/json")
	c.w.WriteHeader(status)
	return ignore(json.NewEncoder(c.w).Encode(body))
}

// ignore drops the error of writing an answer: the client is gone.
func ignore(error) error { return nil }

func (c *call) flag(name string) bool { return c.r.URL.Query().Get(name) == "true" }

// propose commits and folds a refusal into the error.
func (c *call) propose(cmd command.Command) (command.Result, error) {
	ctx, cancel := context.WithTimeout(c.r.Context(), writeTimeout)
	defer cancel()
	return command.Do(ctx, c.Proposer, cmd)
}

func stamp(t time.Time) string { return t.UTC().Format(timeFormat) }

// stampOrNil is null for a time that has not come.
func stampOrNil(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return stamp(t)
}

// resolve turns an id as clients write it into the id of the state: the first
// part is an environment, or the default one is meant.
func (c *call) resolve(id string) string {
	id = path.Clean("/" + id)
	env, _ := model.SplitAppID(id)
	if c.defaultEnv() == "" || state.Environments.Get(c.snap, env) != nil {
		return id
	}
	return model.AppID(c.defaultEnv(), id)
}
