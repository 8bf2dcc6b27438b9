// Package mesos speaks the v1 HTTP API of Mesos masters: the scheduler API
// for external frameworks, and what operators and tools read.
//
// Any master answers reads. Scheduler calls belong to the leader, which keeps
// offers and streams in memory; the others pass them on. Frameworks, their
// tasks and acknowledgements are in the replicated state, so a new leader
// goes on where the old one stopped.
package mesos

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strings"
	"sync"
	"time"

	"appliance/raft/command"
	"appliance/raft/state"
	"appliance/sched/mesos/wire"
)

const (
	// Version is what we say we are: clients enable features by it.
	Version = "1.11.0"
	// DefaultHeartbeat is the interval of Mesos.
	DefaultHeartbeat = 15 * time.Second
	// maxBody bounds a call; the log takes entries of 1 MiB.
	maxBody = 1 << 20
	// writeTimeout bounds a proposal.
	writeTimeout = 20 * time.Second
)

// Server is the http.Handler of the dialect. Fields are set before use.
type Server struct {
	Store    *state.Store
	Proposer command.Proposer
	NewID    func() string // short unique ids
	Log      *slog.Logger
	Self     string // id of this node
	Addr     string // ip:port of this master's dialect
	// LeaderAddr is ip:port of the leading master's dialect, "" if there is
	// none; nil means that this master leads.
	LeaderAddr func() string
	// ProxyToLeader passes a request on if this master does not lead, and
	// reports whether it did. nil: this master leads.
	ProxyToLeader func(w http.ResponseWriter, r *http.Request) bool
	Heartbeat     time.Duration // 0: DefaultHeartbeat

	started  time.Time
	once     sync.Once
	mu       sync.Mutex
	leading  bool
	sessions map[string]*session // by framework id
	arriving map[string]int      // subscriptions in progress, by framework id
	poke     chan struct{}       // has an element when offers should be looked at
}

func (s *Server) init() {
	s.once.Do(func() {
		s.started = time.Now()
		s.sessions = map[string]*session{}
		s.arriving = map[string]int{}
		s.poke = make(chan struct{}, 1)
	})
}

func (s *Server) heartbeat() time.Duration {
	if s.Heartbeat > 0 {
		return s.Heartbeat
	}
	return DefaultHeartbeat
}

func (s *Server) leader() string {
	if s.LeaderAddr == nil {
		return s.Addr
	}
	return s.LeaderAddr()
}

// wake makes the leader's loop look again.
func (s *Server) wake() {
	select {
	case s.poke <- struct{}{}:
	default:
	}
}

// refusal is an HTTP answer other than success; the text is for people.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string { return r.text }

func refuse(status int, format string, args ...any) error {
	return &refusal{status, fmt.Sprintf(format, args...)}
}

func fail(w http.ResponseWriter, err error) {
	status := http.StatusServiceUnavailable
	if r, ok := err.(*refusal); ok {
		status = r.status
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, err.Error())
}

// ServeHTTP implements http.Handler. Every route also answers below /master.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.init()
	path := strings.TrimPrefix(r.URL.Path, "/master")
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	var err error
	switch path {
	case "/api/v1/scheduler":
		err = s.scheduler(w, r)
	case "/api/v1":
		err = s.operator(w, r)
	case "/redirect":
		err = s.redirect(w)
	case "/teardown":
		err = s.teardownForm(w, r)
	default:
		err = s.page(w, r, path)
	}
	if err != nil {
		fail(w, err)
	}
}

// codec is one of the two encodings.
type codec struct {
	name      string
	marshal   func(any) []byte
	unmarshal func([]byte, any) error
}

var (
	jsonCodec  = codec{"application/json", wire.MarshalJSON, wire.UnmarshalJSON}
	protoCodec = codec{"application/x-protobuf", wire.MarshalProto, wire.UnmarshalProto}
)

// requestCodec judges the Content-Type.
func requestCodec(r *http.Request) (codec, error) {
	switch r.Header.Get("Content-Type") {
	case "":
		return codec{}, refuse(http.StatusBadRequest, "Expecting 'Content-Type' to be present")
	case jsonCodec.name:
		return jsonCodec, nil
	case protoCodec.name:
		return protoCodec, nil
	}
	return codec{}, refuse(http.StatusUnsupportedMediaType, "Expecting 'Content-Type' of %s or %s", jsonCodec.name, protoCodec.name)
}

// answerCodec judges Accept: JSON if acceptable, else protobuf.
func answerCodec(r *http.Request) (codec, error) {
	accept := r.Header.Values("Accept")
	if len(accept) == 0 {
		return jsonCodec, nil
	}
	proto := false
	for _, part := range strings.Split(strings.Join(accept, ","), ",") {
		kind, params, err := mime.ParseMediaType(strings.TrimSpace(part))
		if err != nil || params["q"] == "0" || params["q"] == "0.0" {
			continue
		}
		switch kind {
		case jsonCodec.name, "application/*", "*/*":
			return jsonCodec, nil
		case protoCodec.name:
			proto = true
		}
	}
	if proto {
		return protoCodec, nil
	}
	return codec{}, refuse(http.StatusNotAcceptable, "Expecting 'Accept' to allow %s or %s", jsonCodec.name, protoCodec.name)
}

// read decodes the body of a call, in the order of checks of Mesos.
func read(r *http.Request, v any) error {
	if r.Method != http.MethodPost {
		return refuse(http.StatusMethodNotAllowed, "Expecting one of { 'POST' }, but received '%s'", r.Method)
	}
	c, err := requestCodec(r)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return refuse(http.StatusRequestEntityTooLarge, "the call has more than %d bytes", maxBody)
	}
	if err := c.unmarshal(body, v); err != nil {
		what := "Failed to parse body into Call protobuf"
		if c.name == jsonCodec.name {
			what = "Failed to convert JSON into Call protobuf: " + err.Error()
			if !json.Valid(body) {
				what = "Failed to parse body into JSON: " + err.Error()
			}
		}
		return refuse(http.StatusBadRequest, "%s", what)
	}
	return nil
}

// redirect names the leader as Mesos does, without a scheme.
func (s *Server) redirect(w http.ResponseWriter) error {
	l := s.leader()
	if l == "" {
		return refuse(http.StatusServiceUnavailable, "No leader elected")
	}
	w.Header().Set("Location", "//"+l)
	w.WriteHeader(http.StatusTemporaryRedirect)
	return nil
}
