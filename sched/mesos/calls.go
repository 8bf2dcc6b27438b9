package mesos

import (
	"bytes"
	"context"
	"crypto/rand"
	"net/http"
	"time"

	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
	"appliance/sched"
	"appliance/sched/mesos/wire"
)

// newStreamID gives a random UUID.
func newStreamID() string {
	var id [16]byte
	rand.Read(id[:]) // never fails, see crypto/rand
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return string(sched.AppendUUID(nil, id))
}

// call serves every call but SUBSCRIBE.
func (s *Server) call(w http.ResponseWriter, r *http.Request, c *wire.Call) error {
	ss, err := s.authorize(r, c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), writeTimeout)
	defer cancel()
	id := ss.framework.ID
	status := http.StatusAccepted
	switch c.Type {
	case wire.CallTeardown:
		err = s.teardown(ctx, id)
	case wire.CallAccept:
		err = s.accept(ctx, ss, c.Accept)
	case wire.CallDecline:
		s.decline(ss, c.Decline.OfferIDs, c.Decline.Filters)
	case wire.CallRevive:
		s.revive(ss)
	case wire.CallSuppress:
		s.suppress(ss)
	case wire.CallKill:
		err = s.kill(ctx, ss, c.Kill)
	case wire.CallShutdown:
		err = s.shutdown(ctx, id, c.Shutdown)
	case wire.CallAcknowledge:
		err = s.acknowledge(ctx, ss, c.Acknowledge)
	case wire.CallReconcile:
		s.reconcile(ss, c.Reconcile.Tasks)
	case wire.CallUpdate:
		_, err = s.register(ctx, c.Update.FrameworkInfo, id)
		status = http.StatusOK
	default:
		if wire.Name(c.Type) == "" || wire.Name(c.Type) == "UNKNOWN" {
			return refuse(http.StatusNotImplemented, "Received 'UNKNOWN' call")
		}
		// MESSAGE has no executor to go to, REQUEST and inverse offers are
		// hints: accepted and without effect.
	}
	if err != nil {
		return err
	}
	w.WriteHeader(status)
	return nil
}

// authorize finds the session that a call belongs to.
func (s *Server) authorize(r *http.Request, c *wire.Call) (*session, error) {
	f := state.Frameworks.Get(s.Store.Snapshot(), c.FrameworkID.Value)
	if f == nil || f.Removed {
		return nil, refuse(http.StatusBadRequest, "Framework cannot be found")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ss := s.sessions[f.ID]
	if ss == nil || ss.stream == nil {
		return nil, refuse(http.StatusForbidden, "Framework is not subscribed")
	}
	switch id := r.Header.Get("Mesos-Stream-Id"); id {
	case "":
		return nil, refuse(http.StatusBadRequest, "All non-subscribe calls should include the 'Mesos-Stream-Id' header")
	case ss.stream.id:
		return ss, nil
	default:
		return nil, refuse(http.StatusBadRequest, "The stream ID '%s' included in this request didn't match the stream ID currently associated with framework ID '%s'", id, f.ID)
	}
}

func (s *Server) revive(ss *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ss.suppressed = false
	ss.filters = map[string]time.Time{}
	s.wake()
}

func (s *Server) suppress(ss *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ss.suppressed = true
}

func (s *Server) kill(ctx context.Context, ss *session, k *wire.Kill) error {
	t := state.Tasks.Get(s.Store.Snapshot(), TaskID(ss.framework.ID, k.TaskID.Value))
	if t == nil {
		s.reconcile(ss, []wire.Kill{*k})
		return nil
	}
	if k.AgentID != nil && k.AgentID.Value != t.Node {
		return nil
	}
	return s.stop(ctx, "its framework killed it", t)
}

func (s *Server) stop(ctx context.Context, why string, tasks ...*model.Task) error {
	c := &command.StopTasks{Why: why, At: time.Now()}
	for _, t := range tasks {
		c.Tasks = append(c.Tasks, t.ID)
	}
	_, err := command.Do(ctx, s.Proposer, c)
	return err
}

// shutdown ends the tasks of an executor.
func (s *Server) shutdown(ctx context.Context, framework string, sd *wire.Shutdown) error {
	var list []*model.Task
	for t := range state.Tasks.By(s.Store.Snapshot(), "framework", framework) {
		if t.Live() && t.Foreign != nil && t.Foreign.Executor == sd.ExecutorID.Value && t.Node == sd.AgentID.Value {
			list = append(list, t)
		}
	}
	return s.stop(ctx, "its executor was shut down", list...)
}

// acknowledge takes the head of a task's updates and lets the next one go.
func (s *Server) acknowledge(ctx context.Context, ss *session, a *wire.Acknowledge) error {
	id := TaskID(ss.framework.ID, a.TaskID.Value)
	seq, ok := s.acknowledged(ss, id, a.UUID)
	if !ok {
		t := state.Tasks.Get(s.Store.Snapshot(), id)
		if t == nil {
			return nil
		}
		if now := sched.StatusUUID(t); !bytes.Equal(now[:], a.UUID) {
			return nil // an old one, again
		}
		seq = t.Status.Seq
	}
	text := string(sched.AppendUUID(nil, [16]byte(a.UUID)))
	_, err := command.Do(ctx, s.Proposer, &command.AckStatus{Task: id, UUID: text, Seq: seq})
	return err
}

// reconcile answers with the state of the named tasks, or of all live ones.
func (s *Server) reconcile(ss *session, tasks []wire.Kill) {
	snap := s.Store.Snapshot()
	s.mu.Lock()
	defer s.mu.Unlock()
	source, reason := wire.SourceMaster, wire.ReasonReconciliation
	tell := func(st *wire.TaskStatus, message string) {
		st.Source, st.Reason, st.Message, st.UUID = &source, &reason, message, nil
		ss.send(&wire.Event{Type: wire.EventUpdate, Update: &wire.Update{Status: st}})
	}
	if len(tasks) == 0 {
		for t := range state.Tasks.By(snap, "framework", ss.framework.ID) {
			if t.Live() {
				tell(status(t), "Reconciliation: Latest task state")
			}
		}
		return
	}
	for _, k := range tasks {
		if k.TaskID == nil {
			continue
		}
		if t := state.Tasks.Get(snap, TaskID(ss.framework.ID, k.TaskID.Value)); t != nil {
			tell(status(t), "Reconciliation: Latest task state")
			continue
		}
		st := &wire.TaskStatus{TaskID: k.TaskID, AgentID: k.AgentID, Timestamp: unix(time.Now()), State: wire.TaskStateOf("TASK_LOST")}
		message := "Reconciliation: Task is unknown"
		if ss.has(5) { // PARTITION_AWARE
			st.State = wire.TaskStateOf("TASK_UNKNOWN")
			if k.AgentID != nil && state.Nodes.Get(snap, k.AgentID.Value) != nil {
				st.State = wire.TaskStateOf("TASK_GONE")
			}
		}
		tell(st, message)
	}
}

// teardown removes a framework and ends its tasks.
func (s *Server) teardown(ctx context.Context, id string) error {
	_, err := command.Do(ctx, s.Proposer, &command.RemoveFramework{ID: id, Why: "its scheduler ended it", At: time.Now()})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if ss := s.sessions[id]; ss != nil && ss.stream != nil {
		ss.stream.close()
	}
	delete(s.sessions, id)
	s.wake()
	return nil
}

// teardownForm is POST /teardown with frameworkId, for operators.
func (s *Server) teardownForm(w http.ResponseWriter, r *http.Request) error {
	if s.ProxyToLeader != nil && s.ProxyToLeader(w, r) {
		return nil
	}
	if r.Method != http.MethodPost {
		return refuse(http.StatusMethodNotAllowed, "Expecting one of { 'POST' }, but received '%s'", r.Method)
	}
	id := r.PostFormValue("frameworkId")
	if id == "" {
		return refuse(http.StatusBadRequest, "Missing 'frameworkId' query parameter in the request body")
	}
	if f := state.Frameworks.Get(s.Store.Snapshot(), id); f == nil || f.Removed {
		return refuse(http.StatusBadRequest, "No framework found with ID %s", id)
	}
	ctx, cancel := context.WithTimeout(r.Context(), writeTimeout)
	defer cancel()
	return s.teardown(ctx, id)
}
