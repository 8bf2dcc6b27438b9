package mesos

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"appliance/node/model"
	raft "appliance/raft/command"
	"appliance/raft/state"
	"appliance/sched"
	"appliance/sched/mesos/wire"
	"appliance/sched/schedtest"
)

type rig struct {
	testing.TB
	*schedtest.Cluster
	server *Server
	url    string
}

func newRig(t testing.TB) *rig {
	c := schedtest.New(t)
	c.AddAgent(t, "ms1", "test")
	c.AddAgent(t, "ms2", "test")
	s := &Server{Store: c.Store, Proposer: c, NewID: c.NewID, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Self: "mm1", Addr: "127.0.0.1:5050", Heartbeat: 50 * time.Millisecond}
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	t.Cleanup(h.CloseClientConnections)
	schedtest.Start(t, func(ctx context.Context) { _ = s.Run(ctx) })
	for s.init(); !s.leads(); {
		time.Sleep(time.Millisecond)
	}
	return &rig{TB: t, Cluster: c, server: s, url: h.URL}
}

// scheduler is a framework by hand.
type scheduler struct {
	*rig
	codec  codec
	id     string
	stream string
	events chan *wire.Event
	cancel context.CancelFunc
}

func (r *rig) post(c codec, call *wire.Call, header map[string]string) (*http.Response, error) {
	req, err := http.NewRequest("POST", r.url+"/api/v1/scheduler", bytes.NewReader(c.marshal(call)))
	if err != nil {
		r.Fatal(err)
	}
	req.Header.Set("Content-Type", c.name)
	for k, v := range header {
		req.Header.Set(k, v)
	}
	return http.DefaultClient.Do(req)
}

func (r *rig) subscribe(c codec, info wire.FrameworkInfo) *scheduler {
	r.Helper()
	if info.Name == "" {
		info.User, info.Name = "root", "test"
	}
	call := &wire.Call{Type: wire.CallSubscribe, FrameworkID: info.ID, Subscribe: &wire.Subscribe{FrameworkInfo: &info}}
	ctx, cancel := context.WithCancel(context.Background())
	req, _ := http.NewRequestWithContext(ctx, "POST", r.url+"/api/v1/scheduler", bytes.NewReader(c.marshal(call)))
	req.Header.Set("Content-Type", c.name)
	req.Header.Set("Accept", c.name)
	res, err := http.DefaultClient.Do(req)
	if err != nil || res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != c.name {
		r.Fatal(err, res)
	}
	s := &scheduler{rig: r, codec: c, stream: res.Header.Get("Mesos-Stream-Id"), events: make(chan *wire.Event, 1000), cancel: cancel}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(s.events)
		for in := bufio.NewReader(res.Body); ; {
			record, err := wire.ReadRecord(in)
			if err != nil {
				return
			}
			var e wire.Event
			if c.unmarshal(record, &e) != nil {
				return
			}
			s.events <- &e
		}
	}()
	r.Cleanup(func() { cancel(); res.Body.Close(); <-done })
	return s
}

// next gives the next event of a kind; others are skipped.
func (s *scheduler) next(kind wire.EventType) *wire.Event {
	s.Helper()
	for timeout := time.After(10 * time.Second); ; {
		select {
		case e, ok := <-s.events:
			if !ok {
				s.Fatalf("the stream ended before %s", wire.Name(kind))
			}
			if e.Type == kind {
				return e
			}
		case <-timeout:
			s.Fatalf("no %s", wire.Name(kind))
		}
	}
}

// none demands that no event of a kind comes for a while.
func (s *scheduler) none(kind wire.EventType) {
	s.Helper()
	for timeout := time.After(100 * time.Millisecond); ; {
		select {
		case e := <-s.events:
			if e != nil && e.Type == kind {
				s.Fatalf("unexpected %s", s.codec.marshal(e))
			}
		case <-timeout:
			return
		}
	}
}

// joined takes the first event of a subscription.
func (s *scheduler) joined() *scheduler {
	s.Helper()
	sub := s.next(wire.EventSubscribed).Subscribed
	s.id = sub.FrameworkID.Value
	if sub.HeartbeatInterval != 0.05 || sub.MasterInfo.Port != 5050 || sub.MasterInfo.IP == 0 {
		s.Errorf("subscribed %+v %+v", sub, sub.MasterInfo)
	}
	return s
}

// call sends a call and demands 202.
func (s *scheduler) call(c *wire.Call) {
	s.Helper()
	c.FrameworkID = &wire.ID{Value: s.id}
	res, err := s.post(s.codec, c, map[string]string{"Mesos-Stream-Id": s.stream})
	if err != nil {
		s.Fatal(err)
	}
	defer res.Body.Close()
	if body, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusAccepted || len(body) > 0 {
		s.Fatalf("%s: %d %s", wire.Name(c.Type), res.StatusCode, body)
	}
}

func task(id string, o wire.Offer, cpus float64) wire.TaskInfo {
	return wire.TaskInfo{Name: "t " + id, TaskID: &wire.ID{Value: id}, AgentID: o.AgentID, Command: &wire.CommandInfo{Value: "true"},
		Resources: []wire.Resource{{Name: "cpus", Type: wire.Scalar, Scalar: &wire.ScalarValue{Value: cpus}}, {Name: "mem", Type: wire.Scalar, Scalar: &wire.ScalarValue{Value: 64}}}}
}

func accept(o wire.Offer, tasks ...wire.TaskInfo) *wire.Call {
	return &wire.Call{Type: wire.CallAccept, Accept: &wire.Accept{OfferIDs: []wire.ID{*o.ID}, Operations: []wire.Operation{{Type: wire.OpLaunch, Launch: &wire.Launch{Tasks: tasks}}}}}
}

func (s *scheduler) offers() []wire.Offer { s.Helper(); return s.next(wire.EventOffers).Offers.Offers }

func (s *scheduler) update(want string) *wire.TaskStatus {
	s.Helper()
	st := s.next(wire.EventUpdate).Update.Status
	if got := wire.Name(st.State); got != want {
		s.Fatalf("update %s (%s), want %s", got, st.Message, want)
	}
	return st
}

func (s *scheduler) ack(st *wire.TaskStatus) {
	s.Helper()
	s.call(&wire.Call{Type: wire.CallAcknowledge, Acknowledge: &wire.Acknowledge{AgentID: st.AgentID, TaskID: st.TaskID, UUID: st.UUID}})
}

// observe is an agent's report.
func (r *rig) observe(framework, id string, states ...model.TaskState) {
	r.Helper()
	t := state.Tasks.Get(r.Store.Snapshot(), TaskID(framework, id))
	if t == nil {
		r.Fatalf("no task %s", id)
	}
	for i, st := range states {
		r.Must(r.TB, &raft.Observe{Node: t.Node, Statuses: []model.TaskStatus{{Task: t.ID, State: st, Seq: t.Status.Seq + uint64(i) + 1, At: time.Now()}}})
	}
}

func codecs(t *testing.T, f func(*testing.T, codec)) {
	for _, c := range []codec{jsonCodec, protoCodec} {
		t.Run(c.name, func(t *testing.T) { f(t, c) })
	}
}

func TestTaskToTheEnd(t *testing.T) {
	codecs(t, func(t *testing.T, c codec) {
		s := newRig(t).subscribe(c, wire.FrameworkInfo{}).joined()
		offers := s.offers()
		if len(offers) != 2 || offers[0].Hostname != "ms1" || offers[0].URL.Address.IP != "127.0.0.1" || offers[0].Allocation != nil || offers[0].Resources[0].Role != "*" {
			t.Fatalf("offers %s", jsonCodec.marshal(&offers[0]))
		}
		s.call(accept(offers[0], task("1", offers[0], 1)))
		s.observe(s.id, "1", model.TaskRunning)
		st := s.update("TASK_RUNNING")
		s.observe(s.id, "1", model.TaskFinished)
		s.none(wire.EventUpdate) // the first is not acknowledged yet
		s.ack(st)
		st = s.update("TASK_FINISHED")
		if st.TaskID.Value != "1" || st.AgentID.Value != "ms1" || len(st.UUID) != 16 || st.Timestamp == 0 {
			t.Errorf("status %+v", st)
		}
		s.ack(st)
		task := state.Tasks.Get(s.Store.Snapshot(), TaskID(s.id, "1"))
		if !sched.Acknowledged(task) || task.Foreign.Value != "true" || task.Resources.CPUs != 1 {
			t.Errorf("task %+v", task)
		}
		s.next(wire.EventHeartbeat)
	})
}

func TestStatusCodes(t *testing.T) {
	r := newRig(t)
	s := r.subscribe(jsonCodec, wire.FrameworkInfo{}).joined()
	reg := `{"user":"u","name":"n"}`
	for _, c := range []struct {
		name, method, kind, accept, stream, body string
		status                                   int
		says                                     string
	}{
		{"method", "GET", "application/json", "", "", "", 405, "Expecting one of"},
		{"no content type", "POST", "", "", "", "{}", 400, "Expecting 'Content-Type' to be present"},
		{"content type", "POST", "text/plain", "", "", "{}", 415, "Expecting 'Content-Type'"},
		{"syntax", "POST", "application/json", "", "", "{", 400, "Failed to parse body into JSON"},
		{"shape", "POST", "application/json", "", "", "[]", 400, "Failed to convert JSON"},
		{"bad protobuf", "POST", "application/x-protobuf", "", "", "\xff", 400, "Failed to parse body"},
		{"no type", "POST", "application/json", "", "", `{"framework_id":{"value":"x"}}`, 400, "Failed to validate scheduler::Call: Expecting 'type'"},
		{"subscribe without body", "POST", "application/json", "", "", `{"type":"SUBSCRIBE"}`, 400, "Failed to validate scheduler::Call: Expecting 'subscribe'"},
		{"accept", "POST", "application/json", "text/html", "", `{"type":"SUBSCRIBE","subscribe":{"framework_info":` + reg + `}}`, 406, "Accept"},
		{"stream id in subscribe", "POST", "application/json", "", "x", `{"type":"SUBSCRIBE","subscribe":{"framework_info":` + reg + `}}`, 400, "should not include"},
		{"ids differ", "POST", "application/json", "", "", `{"type":"SUBSCRIBE","framework_id":{"value":"x"},"subscribe":{"framework_info":` + reg + `}}`, 400, "differs"},
		{"no framework id", "POST", "application/json", "", "", `{"type":"REVIVE"}`, 400, "'framework_id'"},
		{"unknown framework", "POST", "application/json", "", "", `{"type":"REVIVE","framework_id":{"value":"x"}}`, 400, "Framework cannot be found"},
		{"no stream id", "POST", "application/json", "", "", `{"type":"REVIVE","framework_id":{"value":"ID"}}`, 400, "should include"},
		{"wrong stream id", "POST", "application/json", "", "x", `{"type":"REVIVE","framework_id":{"value":"ID"}}`, 400, "didn't match"},
		{"kill without task", "POST", "application/json", "", s.stream, `{"type":"KILL","framework_id":{"value":"ID"}}`, 400, "'kill'"},
		{"uuid", "POST", "application/json", "", s.stream, `{"type":"ACKNOWLEDGE","framework_id":{"value":"ID"},"acknowledge":{"agent_id":{"value":"a"},"task_id":{"value":"t"},"uuid":"AA=="}}`, 400, "UUID"},
		{"message is taken", "POST", "application/json", "", s.stream, `{"type":"MESSAGE","framework_id":{"value":"ID"}}`, 202, ""},
		{"revive without body", "POST", "application/json", "", s.stream, `{"type":"REVIVE","framework_id":{"value":"ID"},"revive":null}`, 202, ""},
		{"too large", "POST", "application/json", "", "", strings.Repeat(" ", maxBody+1), 413, "more than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			req, _ := http.NewRequest(c.method, r.url+"/master/api/v1/scheduler", strings.NewReader(strings.ReplaceAll(c.body, `"ID"`, `"`+s.id+`"`)))
			for k, v := range map[string]string{"Content-Type": c.kind, "Accept": c.accept, "Mesos-Stream-Id": c.stream} {
				if v != "" {
					req.Header.Set(k, v)
				}
			}
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			body, _ := io.ReadAll(res.Body)
			if res.StatusCode != c.status || !strings.Contains(string(body), c.says) {
				t.Errorf("%d %s", res.StatusCode, body)
			}
		})
	}
	s.cancel()
	r.Eventually(t, "it is disconnected", func(snap *state.Snapshot) bool {
		f := state.Frameworks.Get(snap, s.id)
		return f.Removed || !f.Connected
	})
	res, err := r.post(jsonCodec, &wire.Call{Type: wire.CallRevive, FrameworkID: &wire.ID{Value: s.id}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 403 && res.StatusCode != 400 {
		t.Error(res.StatusCode)
	}
}

func TestDeclineSuppressRevive(t *testing.T) {
	s := newRig(t).subscribe(protoCodec, wire.FrameworkInfo{}).joined()
	decline := func(seconds float64) {
		for _, o := range s.offers() {
			s.call(&wire.Call{Type: wire.CallDecline, Decline: &wire.Decline{OfferIDs: []wire.ID{*o.ID}, Filters: &wire.Filters{RefuseSeconds: &seconds}}})
		}
	}
	decline(0.05)
	decline(1e9) // comes again after the filter
	s.none(wire.EventOffers)
	s.call(&wire.Call{Type: wire.CallRevive})
	offers := s.offers()
	s.call(&wire.Call{Type: wire.CallSuppress})
	s.call(accept(offers[0])) // an empty launch declines
	s.none(wire.EventOffers)
}

func TestBadLaunches(t *testing.T) {
	s := newRig(t).subscribe(jsonCodec, wire.FrameworkInfo{}).joined()
	for _, c := range []struct {
		name   string
		change func(*wire.TaskInfo)
		state  string
		says   string
	}{
		{"other agent", func(i *wire.TaskInfo) { i.AgentID = &wire.ID{Value: "x"} }, "TASK_ERROR", "differs"},
		{"too much", func(i *wire.TaskInfo) { i.Resources[0].Scalar.Value = 99 }, "TASK_ERROR", "more resources"},
		{"nothing", func(i *wire.TaskInfo) { i.Resources = nil }, "TASK_ERROR", "no resources"},
		{"no command", func(i *wire.TaskInfo) { i.Command = nil }, "TASK_ERROR", "CommandInfo"},
		{"port", func(i *wire.TaskInfo) {
			i.Resources = append(i.Resources, wire.Resource{Name: "ports", Type: wire.Range, Ranges: &wire.Ranges{Range: []wire.PortRange{{Begin: 80, End: 80}}}})
		}, "TASK_ERROR", "port 80"},
		{"id", func(i *wire.TaskInfo) { i.TaskID.Value = "a/b" }, "TASK_ERROR", "invalid ID"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.call(&wire.Call{Type: wire.CallRevive})
			o := s.offers()[0]
			info := task(c.name, o, 1)
			c.change(&info)
			s.call(accept(o, info))
			if st := s.update(c.state); !strings.Contains(st.Message, c.says) || st.UUID != nil || wire.Name(*st.Source) != "SOURCE_MASTER" {
				t.Errorf("%s", jsonCodec.marshal(st))
			}
		})
	}
	s.call(&wire.Call{Type: wire.CallRevive})
	o := s.offers()[0]
	gone := o
	gone.ID = &wire.ID{Value: "gone"}
	s.call(accept(gone, task("a", o, 1)))
	if st := s.update("TASK_LOST"); st.Message != "Task launched with invalid offers: Offer gone is no longer valid" || *st.Reason != wire.ReasonInvalidOffers {
		t.Errorf("%+v", st)
	}
	s.call(accept(o, task("b", o, 1), task("b", o, 1)))
	if st := s.update("TASK_ERROR"); st.Message != "Task has duplicate ID: b" {
		t.Error(st.Message)
	}
}

func TestKillAndReconcile(t *testing.T) {
	s := newRig(t).subscribe(jsonCodec, wire.FrameworkInfo{Capabilities: []wire.CapabilityInfo{{Type: 5}}, User: "u", Name: "n"}).joined()
	o := s.offers()[0]
	s.call(accept(o, task("1", o, 1)))
	s.observe(s.id, "1", model.TaskRunning)
	s.ack(s.update("TASK_RUNNING"))
	s.call(&wire.Call{Type: wire.CallReconcile, Reconcile: &wire.Reconcile{}})
	if st := s.update("TASK_RUNNING"); st.UUID != nil || *st.Reason != wire.ReasonReconciliation || st.Message != "Reconciliation: Latest task state" {
		t.Errorf("%+v", st)
	}
	s.call(&wire.Call{Type: wire.CallReconcile, Reconcile: &wire.Reconcile{Tasks: []wire.Kill{{TaskID: &wire.ID{Value: "x"}}}}})
	s.update("TASK_UNKNOWN")
	s.call(&wire.Call{Type: wire.CallKill, Kill: &wire.Kill{TaskID: &wire.ID{Value: "y"}}})
	s.update("TASK_UNKNOWN")
	s.call(&wire.Call{Type: wire.CallKill, Kill: &wire.Kill{TaskID: &wire.ID{Value: "1"}}})
	if k := state.Tasks.Get(s.Store.Snapshot(), TaskID(s.id, "1")); !k.Stop {
		t.Error("the task is not stopped")
	}
	s.observe(s.id, "1", model.TaskKilling, model.TaskKilled) // KILLING is for those who know it
	s.update("TASK_KILLED")
}

func TestOffersFollowTheApps(t *testing.T) {
	r := newRig(t)
	s := r.subscribe(jsonCodec, wire.FrameworkInfo{}).joined()
	first := s.offers()
	r.Deploy(t, model.AppSpec{ID: "/test/a", Instances: 1, Resources: model.Resources{CPUs: 3}})
	r.Must(t, &raft.CreateTasks{Tasks: []model.Task{{ID: "a", App: "/test/a", Release: 1, Resources: model.Resources{CPUs: 3}}}})
	r.Must(t, &raft.Place{Placements: []model.Placement{{Task: "a", Node: "ms1"}}})
	if got := s.next(wire.EventRescind).Rescind.OfferID.Value; got != first[0].ID.Value {
		t.Errorf("rescinded %s", got)
	}
	if o := s.offers()[0]; o.AgentID.Value != "ms1" || o.Resources[0].Scalar.Value != 1 {
		t.Errorf("%s", jsonCodec.marshal(&o))
	}
	r.Must(t, &raft.SetNodeStatus{Node: "ms2", Status: model.NodeDown, At: time.Now()})
	for range 2 {
		select {
		case e := <-s.events:
			if e.Type == wire.EventHeartbeat {
				continue
			}
		case <-time.After(5 * time.Second):
			t.Fatal("nothing about the lost agent")
		}
	}
}

func TestTwoFrameworksShareFairly(t *testing.T) {
	r := newRig(t)
	a := r.subscribe(jsonCodec, wire.FrameworkInfo{User: "u", Name: "a"}).joined()
	held := a.offers()
	b := r.subscribe(jsonCodec, wire.FrameworkInfo{User: "u", Name: "b"}).joined()
	b.none(wire.EventOffers) // all is held by a
	hour := 3600.0
	a.call(&wire.Call{Type: wire.CallDecline, Decline: &wire.Decline{OfferIDs: []wire.ID{*held[0].ID}, Filters: &wire.Filters{RefuseSeconds: &hour}}})
	if got := b.offers()[0].AgentID.Value; got != held[0].AgentID.Value {
		t.Errorf("b got %s", got)
	}
}

func TestFailover(t *testing.T) {
	r := newRig(t)
	s := r.subscribe(jsonCodec, wire.FrameworkInfo{User: "u", Name: "n", FailoverTimeout: 3600}).joined()
	o := s.offers()[0]
	s.call(accept(o, task("1", o, 1)))
	again := r.subscribe(protoCodec, wire.FrameworkInfo{User: "u", Name: "n", ID: &wire.ID{Value: s.id}, FailoverTimeout: 3600}).joined()
	if again.id != s.id || again.stream == s.stream {
		t.Error("not the same framework with a new stream")
	}
	if e := s.next(wire.EventError); e.Error.Message != "Framework failed over" {
		t.Error(e.Error.Message)
	}
	r.observe(s.id, "1", model.TaskRunning)
	again.update("TASK_RUNNING")
	again.cancel()
	r.Eventually(t, "it is disconnected", func(snap *state.Snapshot) bool { return !state.Frameworks.Get(snap, s.id).Connected })
	back := r.subscribe(jsonCodec, wire.FrameworkInfo{User: "u", Name: "n", ID: &wire.ID{Value: s.id}}).joined()
	back.update("TASK_RUNNING") // it was never acknowledged
	back.call(&wire.Call{Type: wire.CallTeardown})
	if f := state.Frameworks.Get(r.Store.Snapshot(), s.id); !f.Removed {
		t.Error("not removed")
	}
	if k := state.Tasks.Get(r.Store.Snapshot(), TaskID(s.id, "1")); !k.Stop {
		t.Error("its task goes on")
	}
	late := r.subscribe(jsonCodec, wire.FrameworkInfo{User: "u", Name: "n", ID: &wire.ID{Value: s.id}})
	if e := late.next(wire.EventError); e.Error.Message != "Framework has been removed" {
		t.Error(e.Error.Message)
	}
}

func TestRemovedAfterFailoverTimeout(t *testing.T) {
	r := newRig(t)
	time.Sleep(2 * settle) // so that the end of the stream is not taken for the former leader's
	s := r.subscribe(jsonCodec, wire.FrameworkInfo{}).joined()
	s.cancel()
	r.Eventually(t, "it is removed at once", func(snap *state.Snapshot) bool { return state.Frameworks.Get(snap, s.id).Removed })
}

func TestNewLeaderWaitsForFrameworks(t *testing.T) {
	r := newRig(t)
	r.Must(t, &raft.PutFramework{Framework: model.Framework{ID: "f", Name: "f", Connected: true}})
	r.Eventually(t, "it is disconnected", func(snap *state.Snapshot) bool { return !state.Frameworks.Get(snap, "f").Connected })
	if state.Frameworks.Get(r.Store.Snapshot(), "f").Removed {
		t.Error("it had no chance to come back")
	}
}

func TestPages(t *testing.T) {
	r := newRig(t)
	s := r.subscribe(jsonCodec, wire.FrameworkInfo{}).joined()
	o := s.offers()[0]
	s.call(accept(o, task("1", o, 1)))
	for path, says := range map[string]string{
		"/state": `"leader":"master@127.0.0.1:5050"`, "/master/state.json": `"hostname":"ms1"`, "/slaves": `"ports":"[31000-31999]"`,
		"/frameworks": `"name":"marathon"`, "/tasks?task_id=1": `"id":"1"`, "/version": `"version":"1.11.0"`, "/health": "", "/metrics/snapshot": `"master/tasks_staging":1`,
	} {
		res, err := http.Get(r.url + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != 200 || !strings.Contains(string(body), says) || len(body) > 0 && !json.Valid(body) {
			t.Errorf("%s: %d %s", path, res.StatusCode, body)
		}
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Get(r.url + "/redirect")
	if err != nil || res.StatusCode != 307 || res.Header.Get("Location") != "//127.0.0.1:5050" {
		t.Error(err, res)
	}
	res.Body.Close()
	for kind, says := range map[string]string{
		"GET_HEALTH": `"healthy":true`, "GET_VERSION": "1.11.0", "GET_STATE": `"get_tasks"`, "GET_AGENTS": `"hostname":"ms2"`,
		"GET_FRAMEWORKS": `"name":"test"`, "GET_TASKS": "TASK_STAGING", "GET_MASTER": `"port":5050`,
	} {
		res, err := http.Post(r.url+"/api/v1", "application/json", strings.NewReader(`{"type":"`+kind+`"}`))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != 200 || !strings.Contains(string(body), says) || !strings.Contains(string(body), `"type":"`+kind+`"`) {
			t.Errorf("%s: %d %s", kind, res.StatusCode, body)
		}
	}
}

func TestFormerLeaderTakesNobody(t *testing.T) {
	r := newRig(t)
	s := r.subscribe(jsonCodec, wire.FrameworkInfo{}).joined()
	r.server.lead(false)
	for range s.events { // ends with the stream
	}
	res, err := r.post(jsonCodec, &wire.Call{Type: wire.CallSubscribe, Subscribe: &wire.Subscribe{FrameworkInfo: &wire.FrameworkInfo{Name: "n"}}}, nil)
	if err != nil || res.StatusCode != http.StatusServiceUnavailable {
		t.Error(err, res)
	}
	res.Body.Close()
}

func TestFollowerPassesOn(t *testing.T) {
	r := newRig(t)
	var passed atomic.Int32
	r.server.ProxyToLeader = func(w http.ResponseWriter, _ *http.Request) bool {
		passed.Add(1)
		w.WriteHeader(http.StatusTeapot)
		return true
	}
	res, err := r.post(jsonCodec, &wire.Call{}, nil)
	if err != nil || res.StatusCode != http.StatusTeapot || passed.Load() != 1 {
		t.Error(err, res)
	}
	res.Body.Close()
}
