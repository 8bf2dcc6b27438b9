package mesos

import (
	"context"
	"encoding/binary"
	"net"
	"net/http"
	"strconv"
	"time"

	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
	"appliance/sched/mesos/wire"
)

// scheduler serves POST /api/v1/scheduler with the checks of Mesos in their
// order.
func (s *Server) scheduler(w http.ResponseWriter, r *http.Request) error {
	if s.ProxyToLeader != nil && s.ProxyToLeader(w, r) {
		return nil
	}
	if s.leader() == "" {
		return refuse(http.StatusServiceUnavailable, "No leader elected")
	}
	if !s.leads() {
		return errRecovering
	}
	var call wire.Call
	if err := read(r, &call); err != nil {
		return err
	}
	if fault := invalid(&call); fault != "" {
		return refuse(http.StatusBadRequest, "Failed to validate scheduler::Call: %s", fault)
	}
	if call.Type == wire.CallSubscribe {
		return s.subscribe(w, r, &call)
	}
	return s.call(w, r, &call)
}

// invalid says what is wrong with the form of a call, "" if nothing is.
func invalid(c *wire.Call) string {
	missing := func(bad bool, what string) string {
		if bad {
			return "Expecting '" + what + "' to be present"
		}
		return ""
	}
	if c.Type == wire.CallSubscribe {
		return invalidSubscribe(c)
	}
	if c.FrameworkID == nil {
		return "Expecting 'framework_id' to be present"
	}
	switch c.Type {
	case wire.CallAccept:
		return missing(c.Accept == nil, "accept")
	case wire.CallDecline:
		return missing(c.Decline == nil, "decline")
	case wire.CallKill:
		return missing(c.Kill == nil || c.Kill.TaskID == nil, "kill")
	case wire.CallShutdown:
		return missing(c.Shutdown == nil || c.Shutdown.ExecutorID == nil || c.Shutdown.AgentID == nil, "shutdown")
	case wire.CallAcknowledge:
		if c.Acknowledge == nil || c.Acknowledge.TaskID == nil || c.Acknowledge.AgentID == nil {
			return "Expecting 'acknowledge' to be present"
		}
		if len(c.Acknowledge.UUID) != 16 {
			return "Not a valid UUID"
		}
	case wire.CallReconcile:
		return missing(c.Reconcile == nil, "reconcile")
	case wire.CallUpdate:
		return missing(c.Update == nil || c.Update.FrameworkInfo == nil, "update_framework")
	case 0:
		return "Expecting 'type' to be present"
	}
	return ""
}

func invalidSubscribe(c *wire.Call) string {
	if c.Subscribe == nil || c.Subscribe.FrameworkInfo == nil {
		return "Expecting 'subscribe' to be present"
	}
	info := c.Subscribe.FrameworkInfo
	if c.FrameworkID != nil && (info.ID == nil || info.ID.Value != c.FrameworkID.Value) {
		return "'framework_id' differs from 'subscribe.framework_info.id'"
	}
	multi := false
	for _, k := range info.Capabilities {
		multi = multi || wire.Name(k.Type) == "MULTI_ROLE"
	}
	if multi && info.Role != "" {
		return "'FrameworkInfo.role' must not be set when the framework is MULTI_ROLE capable"
	}
	if !multi && len(info.Roles) > 0 {
		return "'FrameworkInfo.roles' must not be set when the framework is not MULTI_ROLE capable"
	}
	return ""
}

// subscribe registers a framework, or attaches it again, and serves its
// stream.
func (s *Server) subscribe(w http.ResponseWriter, r *http.Request, call *wire.Call) error {
	c, err := answerCodec(r)
	if err != nil {
		return err
	}
	if r.Header.Get("Mesos-Stream-Id") != "" {
		return refuse(http.StatusBadRequest, "Subscribe calls should not include the 'Mesos-Stream-Id' header")
	}
	info := call.Subscribe.FrameworkInfo
	if info.ID == nil || info.ID.Value == "" {
		info.ID = &wire.ID{Value: s.NewID()}
	}
	id := info.ID.Value
	st := &stream{id: newStreamID(), codec: c, events: make(chan []byte, maxQueued), closed: make(chan struct{})}
	if err := s.arrive(r.Context(), call.Subscribe, id, st); model.CodeOf(err) == model.CodeConflict {
		st.send(errorEvent(err.Error()))
		st.close()
		_ = s.serve(w, r, st)
		return nil
	} else if err != nil {
		return err
	}
	defer s.detach(id, st)
	_ = s.serve(w, r, st) // however it ended, the answer has begun
	return nil
}

// arrive registers the framework and gives it the stream.
func (s *Server) arrive(ctx context.Context, sub *wire.Subscribe, id string, st *stream) error {
	s.registering(id, 1)
	defer s.registering(id, -1)
	f, err := s.register(ctx, sub.FrameworkInfo, id)
	if err != nil {
		return err
	}
	return s.attach(f, st, len(sub.SuppressedRoles) > 0)
}

// errRecovering is told while Run does not run: no offers would come.
var errRecovering = refuse(http.StatusServiceUnavailable, "Master has not finished recovery")

func (s *Server) leads() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leading
}

// registering counts subscriptions in progress: such a framework must not be
// taken for one that lost its stream.
func (s *Server) registering(id string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.arriving[id] += n; s.arriving[id] == 0 {
		delete(s.arriving, id)
	}
}

func errorEvent(message string) *wire.Event {
	return &wire.Event{Type: wire.EventError, Error: &wire.Error{Message: message}}
}

// register writes the framework into the state.
func (s *Server) register(ctx context.Context, info *wire.FrameworkInfo, id string) (*model.Framework, error) {
	now := time.Now()
	info.ID = &wire.ID{Value: id}
	f := &model.Framework{
		ID: id, Name: info.Name, User: info.User, Hostname: info.Hostname, Principal: info.Principal, Roles: info.Roles, WebUI: info.WebUI,
		Checkpoint: info.Checkpoint, FailoverTimeout: seconds(info.FailoverTimeout), RegisteredAt: now, Connected: true, Info: wire.MarshalProto(info),
	}
	if len(f.Roles) == 0 {
		f.Roles = []string{"*"}
		if info.Role != "" {
			f.Roles[0] = info.Role
		}
	}
	for _, k := range info.Capabilities {
		f.Capabilities = append(f.Capabilities, wire.Name(k.Type))
	}
	if old := state.Frameworks.Get(s.Store.Snapshot(), id); old != nil {
		f.RegisteredAt = old.RegisteredAt
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	_, err := command.Do(ctx, s.Proposer, &command.PutFramework{Framework: *f})
	return f, err
}

// maxFailover keeps "Infinity" and other absurd times inside a duration.
const maxFailover = 10 * 365 * 24 * time.Hour

func seconds(f float64) model.Duration {
	if !(f > 0) { // NaN too
		return 0
	}
	if f > maxFailover.Seconds() {
		return model.Duration(maxFailover)
	}
	return model.Duration(f * float64(time.Second))
}

// attach makes a stream the framework's only one.
func (s *Server) attach(f *model.Framework, st *stream, suppressed bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.leading {
		return errRecovering
	}
	if old := s.sessions[f.ID]; old != nil && old.stream != nil {
		old.stream.send(errorEvent("Framework failed over"))
		old.stream.close()
	}
	ss := &session{framework: f, stream: st, offers: map[string]*offer{}, filters: map[string]time.Time{}, suppressed: suppressed, updates: map[string]*updates{}}
	s.sessions[f.ID] = ss
	st.send(&wire.Event{Type: wire.EventSubscribed, Subscribed: &wire.Subscribed{
		FrameworkID: &wire.ID{Value: f.ID}, HeartbeatInterval: s.heartbeat().Seconds(), MasterInfo: s.masterInfo(),
	}})
	st.send(&wire.Event{Type: wire.EventHeartbeat})
	s.wake()
	return nil
}

func (s *Server) masterInfo() *wire.MasterInfo {
	host, portText, _ := net.SplitHostPort(s.Addr)
	port, _ := strconv.Atoi(portText)
	m := &wire.MasterInfo{ID: s.Self, Port: uint32(port), PID: "master@" + s.Addr, Hostname: s.Self, Version: Version,
		Address: &wire.Address{Hostname: host, IP: host, Port: int32(port)}}
	if ip := net.ParseIP(host).To4(); ip != nil {
		m.IP = binary.NativeEndian.Uint32(ip)
	}
	if n := state.Nodes.Get(s.Store.Snapshot(), s.Self); n != nil {
		m.Hostname = n.Name
	}
	return m
}
