package consul_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"appliance/discovery"
	"appliance/discovery/check"
	"appliance/discovery/consul"
	"appliance/discovery/discoverytest"
	"appliance/node/model"
	"appliance/raft/command"

	"github.com/hashicorp/consul/api"
)

// agent is the API of node mm1 over a small cluster, for the official client.
type agent struct {
	*discoverytest.Cluster
	live   *discoverytest.Liveness
	client *api.Client
	url    string
}

func start(t testing.TB, change func(*consul.Config)) *agent {
	c := discoverytest.New()
	c.Must(&command.InitCluster{Cluster: model.Cluster{ID: "c1", CACert: []byte("PEM")}})
	c.Node("mm1", "10.0.0.1", model.RoleMaster)
	c.Node("ms1", "10.0.0.11", model.RoleAgent)
	c.Node("ms2", "10.0.0.12", model.RoleAgent)
	c.Deploy(model.AppSpec{ID: "/test/notejam", Ports: []model.Port{{ContainerPort: 80}}, Env: map[string]string{"SERVICE_TAGS": "v1"}})
	c.Run("t1", "/test/notejam", "ms1", 31001)
	c.Run("t2", "/test/notejam", "ms2", 31002)

	live := discoverytest.NewLiveness()
	watcher := discovery.NewWatcher(c.Store, live)
	runner := check.New(check.Config{Store: c.Store, Node: "mm1", Proposer: c})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	go func() { watcher.Run(ctx); done <- struct{}{} }()
	go func() { runner.Run(ctx); done <- struct{}{} }()
	cfg := consul.Config{
		Store: c.Store, Catalog: watcher, Proposer: c, Checks: runner, ReadIndex: c.ReadIndex,
		Leader: func() string { return "id-mm1" }, NodeID: "id-mm1", Node: "mm1", Addr: "10.0.0.1", Version: "1.2.3",
	}
	if change != nil {
		change(&cfg)
	}
	srv := httptest.NewUnstartedServer(consul.New(cfg))
	srv.Config.BaseContext = func(net.Listener) context.Context { return ctx }
	srv.Start()
	t.Cleanup(func() {
		cancel() // ends blocking queries, those that a client repeats too
		srv.CloseClientConnections()
		srv.Close()
		<-done
		<-done
	})
	client, err := api.NewClient(&api.Config{Address: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	return &agent{Cluster: c, live: live, client: client, url: srv.URL}
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// do sends a plain request and returns status, body and headers.
func (a *agent) do(t testing.TB, method, path, body string) (int, string, http.Header) {
	t.Helper()
	req := must[*http.Request](t)(http.NewRequest(method, a.url+path, strings.NewReader(body)))
	resp := must[*http.Response](t)(http.DefaultClient.Do(req))
	defer resp.Body.Close()
	raw := must[[]byte](t)(io.ReadAll(resp.Body))
	return resp.StatusCode, string(raw), resp.Header
}

func TestStatusAndSelf(t *testing.T) {
	a := start(t, nil)
	if got := must[string](t)(a.client.Status().Leader()); got != "10.0.0.1:8300" {
		t.Errorf("leader = %s", got)
	}
	if got := must[[]string](t)(a.client.Status().Peers()); !slices.Equal(got, []string{"10.0.0.1:8300"}) {
		t.Errorf("peers = %v", got)
	}
	if got := must[string](t)(a.client.Agent().NodeName()); got != "mm1" {
		t.Errorf("node name = %s", got)
	}
	self := must[map[string]map[string]any](t)(a.client.Agent().Self())
	if self["Config"]["Datacenter"] != "dc1" || self["Config"]["Server"] != true {
		t.Errorf("self = %v", self["Config"])
	}
	a.live.Kill("ms2", time.Now())
	a.Status("ms1", model.NodeLeft)
	until(t, "members", func() bool {
		states := map[string]int{}
		for _, m := range must[[]*api.AgentMember](t)(a.client.Agent().Members(false)) {
			states[m.Name] = m.Status
		}
		return reflect.DeepEqual(states, map[string]int{"mm1": 1, "ms1": 3, "ms2": 4})
	})
	raft := must[*api.RaftConfiguration](t)(a.client.Operator().RaftGetConfiguration(nil))
	if len(raft.Servers) != 1 || !raft.Servers[0].Leader {
		t.Errorf("raft = %+v", raft)
	}
	roots, _, err := a.client.Connect().CARoots(nil)
	if err != nil || len(roots.Roots) != 1 || roots.ActiveRootID != "c1" {
		t.Errorf("roots = %+v, %v", roots, err)
	}
}

func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestCatalog(t *testing.T) {
	a := start(t, nil)
	cat := a.client.Catalog()
	services, meta, err := cat.Services(nil)
	if err != nil || !slices.Equal(services["notejam-test"], []string{"v1", "test", "notejam"}) || meta.LastIndex == 0 || !meta.KnownLeader {
		t.Errorf("services = %v, %+v, %v", services, meta, err)
	}
	nodes, _, err := cat.Nodes(&api.QueryOptions{NodeMeta: map[string]string{"env": "test"}, Near: "_agent"})
	if err != nil || len(nodes) != 3 || nodes[1].Node != "ms1" || nodes[1].Address != "10.0.0.11" {
		t.Errorf("nodes = %v, %v", nodes, err)
	}
	rows, _, err := cat.Service("notejam-test", "v1", nil)
	if err != nil || len(rows) != 2 || rows[0].ServiceAddress != "10.0.0.11" || rows[0].ServicePort != 31001 || rows[0].ServiceMeta["app"] != "/test/notejam" {
		t.Errorf("service = %+v, %v", rows, err)
	}
	rows, _, err = cat.Service("notejam-test", "", &api.QueryOptions{Filter: `ServicePort == 31002 and "v1" in ServiceTags`})
	if err != nil || len(rows) != 1 || rows[0].Node != "ms2" {
		t.Errorf("filtered = %+v, %v", rows, err)
	}
	if _, _, err = cat.Service("notejam-test", "", &api.QueryOptions{Filter: `bad ==`}); err == nil || !strings.Contains(err.Error(), "Failed to create boolean expression evaluator") {
		t.Errorf("bad filter: %v", err)
	}
	if n, _, err := cat.Node("none", nil); n != nil || err != nil {
		t.Errorf("unknown node = %v, %v", n, err)
	}
	if n, _, err := cat.Node("ms1", nil); err != nil || n.Services["ms1:t1:80"].Port != 31001 {
		t.Errorf("node = %v, %v", n, err)
	}
	if n, _, err := cat.NodeServiceList("ms1", nil); err != nil || len(n.Services) != 1 {
		t.Errorf("node services = %v, %v", n, err)
	}
	if dcs := must[[]string](t)(cat.Datacenters()); !slices.Equal(dcs, []string{"dc1"}) {
		t.Errorf("datacenters = %v", dcs)
	}
}

func TestCatalogRegister(t *testing.T) {
	a := start(t, nil)
	cat := a.client.Catalog()
	reg := &api.CatalogRegistration{
		Node: "db1", Address: "10.9.9.9", NodeMeta: map[string]string{"rack": "1"},
		Service: &api.AgentService{ID: "pg", Service: "postgres", Port: 5432, Tags: []string{"main"}},
		Check:   &api.AgentCheck{Node: "db1", CheckID: "alive", Name: "alive", Status: "passing", ServiceID: "pg"},
	}
	if _, err := cat.Register(reg, nil); err != nil {
		t.Fatal(err)
	}
	rows, _, err := a.client.Health().Service("postgres", "main", true, nil)
	if err != nil || len(rows) != 1 || rows[0].Node.Address != "10.9.9.9" || rows[0].Node.Meta["rack"] != "1" || rows[0].Checks.AggregatedStatus() != "passing" {
		t.Fatalf("health = %+v, %v", rows, err)
	}
	before := a.Store.Index()
	if _, err := cat.Register(reg, nil); err != nil || a.Store.Index() != before {
		t.Errorf("registering the same again wrote %d entries, %v", a.Store.Index()-before, err)
	}
	if _, err := cat.Deregister(&api.CatalogDeregistration{Node: "db1", ServiceID: "pg"}, nil); err != nil {
		t.Fatal(err)
	}
	if n, _, err := cat.Node("db1", nil); err != nil || n == nil || len(n.Services) != 0 {
		t.Errorf("after the service went: %+v, %v", n, err)
	}
	if _, err := cat.Deregister(&api.CatalogDeregistration{Node: "db1"}, nil); err != nil {
		t.Fatal(err)
	}
	if n, _, err := cat.Node("db1", nil); err != nil || n != nil {
		t.Errorf("after the node went: %+v, %v", n, err)
	}
}

func TestHealthBlocking(t *testing.T) {
	a := start(t, nil)
	h := a.client.Health()
	rows, meta, err := h.Service("notejam-test", "", true, nil)
	if err != nil || len(rows) != 2 || len(rows[0].Checks) != 2 || rows[0].Checks[0].CheckID != "serfHealth" {
		t.Fatalf("health = %+v, %v", rows, err)
	}
	type result struct {
		rows []*api.ServiceEntry
		meta *api.QueryMeta
		err  error
	}
	woke := make(chan result, 1)
	block := func(index uint64, wait time.Duration) {
		rows, meta, err := h.Service("notejam-test", "", true, &api.QueryOptions{WaitIndex: index, WaitTime: wait})
		woke <- result{rows, meta, err}
	}
	go block(meta.LastIndex, 20*time.Second)
	// Another service changes: nobody wakes.
	a.Must(&command.RegisterService{Service: &model.ExternalService{Node: "ms1", ID: "x", Name: "x"}})
	select {
	case res := <-woke:
		t.Fatalf("woken by another service: %+v", res)
	case <-time.After(100 * time.Millisecond):
	}
	a.Stop("t1")
	res := <-woke
	if res.err != nil || len(res.rows) != 1 || res.meta.LastIndex <= meta.LastIndex {
		t.Fatalf("after a stop: %+v", res)
	}
	// Gossip's opinion wakes too, though the log does not move.
	a.Run("t3", "/test/notejam", "ms1", 31003)
	rows, meta, _ = h.Service("notejam-test", "", true, nil)
	go block(meta.LastIndex, 20*time.Second)
	a.live.Kill("ms1", time.Now())
	if res = <-woke; res.err != nil || len(res.rows) != 1 || res.rows[0].Node.Node != "ms2" {
		t.Fatalf("after gossip's word: %+v", res)
	}
	// Time over: the same index.
	block(res.meta.LastIndex, 50*time.Millisecond)
	if again := <-woke; again.err != nil || again.meta.LastIndex != res.meta.LastIndex {
		t.Errorf("after the wait: %+v", again)
	}
	// An index from elsewhere is answered at once.
	block(1<<40, 20*time.Second)
	if again := <-woke; again.err != nil || again.meta.LastIndex != res.meta.LastIndex {
		t.Errorf("index from elsewhere: %+v", again)
	}
}

func TestHealthLists(t *testing.T) {
	a := start(t, nil)
	h := a.client.Health()
	if rows, meta, err := h.Service("none", "", false, nil); err != nil || len(rows) != 0 || meta.LastIndex < 2 {
		t.Errorf("unknown service = %v, %+v, %v", rows, meta, err)
	}
	checks, _, err := h.State("any", nil)
	if err != nil || len(checks) != 5 {
		t.Errorf("state any = %d, %v", len(checks), err)
	}
	if checks, _, err := h.State("critical", nil); err != nil || len(checks) != 0 {
		t.Errorf("state critical = %v, %v", checks, err)
	}
	if checks, _, err := h.Node("ms1", nil); err != nil || len(checks) != 2 {
		t.Errorf("node = %v, %v", checks, err)
	}
	if checks, _, err := h.Checks("notejam-test", nil); err != nil || len(checks) != 2 || checks[0].ServiceID != "ms1:t1:80" {
		t.Errorf("checks = %v, %v", checks, err)
	}
	if _, body, _ := a.do(t, "GET", "/v1/health/service/notejam-test?passing=false", ""); !strings.HasPrefix(body, "[{") {
		t.Errorf("passing=false: %s", body)
	}
}

// The last instance of a service is on a node that gossip believes dead: it
// stays in the answers.
func TestDoubtedInstanceStaysPassing(t *testing.T) {
	a := start(t, nil)
	a.live.Kill("ms1", time.Now())
	a.live.Kill("ms2", time.Now())
	until(t, "node critical", func() bool {
		checks, _, err := a.client.Health().Node("ms1", nil)
		return err == nil && checks[0].Status == "critical"
	})
	rows, _, err := a.client.Health().Service("notejam-test", "", true, nil)
	if err != nil || len(rows) != 2 || rows[0].Checks.AggregatedStatus() != "passing" {
		t.Errorf("rows = %+v, %v", rows, err)
	}
}

func TestAgentRegister(t *testing.T) {
	a := start(t, nil)
	ag := a.client.Agent()
	reg := &api.AgentServiceRegistration{
		ID: "web1", Name: "web", Port: 80, Tags: []string{"a"}, Meta: map[string]string{"my_key": "v"},
		Checks: api.AgentServiceChecks{{TTL: "10m"}, {TTL: "10m", Status: "passing"}},
	}
	if err := ag.ServiceRegister(reg); err != nil {
		t.Fatal(err)
	}
	services := must[map[string]*api.AgentService](t)(ag.Services())
	if s := services["web1"]; len(services) != 1 || s == nil || s.Address != "10.0.0.1" || s.Meta["my_key"] != "v" {
		t.Fatalf("services = %+v", services)
	}
	checks := must[map[string]*api.AgentCheck](t)(ag.Checks())
	if len(checks) != 2 || checks["service:web1:1"].Status != "critical" || checks["service:web1:2"].Status != "passing" {
		t.Fatalf("checks = %+v", checks)
	}
	if err := ag.UpdateTTL("service:web1:1", "up", "pass"); err != nil {
		t.Fatal(err)
	}
	if rows, _, err := a.client.Health().Service("web", "", true, nil); err != nil || len(rows) != 1 || rows[0].Checks[1].Output != "up" {
		t.Errorf("health = %+v, %v", rows, err)
	}
	if err := ag.WarnTTL("service:web1:1", "careful"); err != nil {
		t.Fatal(err)
	}
	if status, _, err := ag.AgentHealthServiceByID("web1"); err != nil || status != "warning" {
		t.Errorf("agent health = %s, %v", status, err)
	}
	// The same again keeps the status and writes nothing.
	before := a.Store.Index()
	reg.Checks[1].Status = ""
	if err := ag.ServiceRegister(reg); err != nil || a.Store.Index() != before {
		t.Errorf("same again: %d entries, %v", a.Store.Index()-before, err)
	}
	if err := ag.EnableServiceMaintenance("web1", "works"); err != nil {
		t.Fatal(err)
	}
	if status, _, err := ag.AgentHealthServiceByName("web"); err != nil || status != "critical" && status != "maintenance" {
		t.Errorf("maintenance: %s, %v", status, err)
	}
	if err := ag.DisableServiceMaintenance("web1"); err != nil {
		t.Fatal(err)
	}
	if err := ag.EnableNodeMaintenance("works"); err != nil {
		t.Fatal(err)
	}
	if rows, _, err := a.client.Health().Service("web", "", true, nil); err != nil || len(rows) != 0 {
		t.Errorf("node maintenance: %+v, %v", rows, err)
	}
	if err := ag.DisableNodeMaintenance(); err != nil {
		t.Fatal(err)
	}
	svc, meta, err := ag.Service("web1", nil)
	if err != nil || svc.Service != "web" || meta.LastContentHash == "" {
		t.Errorf("service = %+v, %+v, %v", svc, meta, err)
	}
	if err := ag.ServiceDeregister("web1"); err != nil {
		t.Fatal(err)
	}
	if err := ag.ServiceDeregister("web1"); err == nil || !strings.Contains(err.Error(), `404 (Unknown service ID "web1". Ensure that the service ID is passed, not the service name.)`) {
		t.Errorf("unknown service: %v", err)
	}
	if err := ag.PassTTL("service:web1:1", ""); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("unknown check: %v", err)
	}
}

func TestAgentCheckRegister(t *testing.T) {
	a := start(t, nil)
	ag := a.client.Agent()
	up := httptest.NewServer(http.NotFoundHandler())
	defer up.Close()
	err := ag.CheckRegister(&api.AgentCheckRegistration{Name: "tcp", AgentServiceCheck: api.AgentServiceCheck{TCP: up.Listener.Addr().String(), Interval: "1s"}})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "TCP check passing", func() bool {
		return must[map[string]*api.AgentCheck](t)(ag.Checks())["tcp"].Status == "passing"
	})
	bad := map[string]api.AgentCheckRegistration{
		"Missing check name":              {AgentServiceCheck: api.AgentServiceCheck{TTL: "1s"}},
		"TTL must be > 0":                 {Name: "x"},
		"Interval must be > 0":            {Name: "x", AgentServiceCheck: api.AgentServiceCheck{HTTP: "http://x"}},
		"Args is not supported":           {Name: "x", AgentServiceCheck: api.AgentServiceCheck{Args: []string{"true"}, Interval: "1s"}},
		`ServiceID "none" does not exist`: {Name: "x", ServiceID: "none", AgentServiceCheck: api.AgentServiceCheck{TTL: "1s"}},
	}
	for want, reg := range bad {
		if err := ag.CheckRegister(&reg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	if err := ag.CheckDeregister("tcp"); err != nil {
		t.Fatal(err)
	}
	if err := ag.CheckDeregister("tcp"); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("unknown check: %v", err)
	}
}

func TestKV(t *testing.T) {
	a := start(t, nil)
	kv := a.client.KV()
	if p, meta, err := kv.Get("none", nil); p != nil || err != nil || meta.LastIndex == 0 {
		t.Errorf("missing = %v, %+v, %v", p, meta, err)
	}
	for _, key := range []string{"a/1", "a/b/2", "a/b/3", "z//odd key"} {
		if _, err := kv.Put(&api.KVPair{Key: key, Value: []byte("v " + key), Flags: 42}, nil); err != nil {
			t.Fatal(err)
		}
	}
	p, meta, err := kv.Get("z//odd key", nil)
	if err != nil || string(p.Value) != "v z//odd key" || p.Flags != 42 || meta.LastIndex != p.ModifyIndex {
		t.Errorf("got %+v, %+v, %v", p, meta, err)
	}
	if keys, _, err := kv.Keys("a/", "/", nil); err != nil || !slices.Equal(keys, []string{"a/1", "a/b/"}) {
		t.Errorf("keys = %v, %v", keys, err)
	}
	if pairs, _, err := kv.List("a/b", nil); err != nil || len(pairs) != 2 {
		t.Errorf("list = %v, %v", pairs, err)
	}
	cas := func(index uint64, value string) bool {
		ok, _, err := kv.CAS(&api.KVPair{Key: "c", Value: []byte(value), ModifyIndex: index}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	if !cas(0, "1") || cas(0, "2") {
		t.Error("create-only does not hold")
	}
	p, _, _ = kv.Get("c", nil)
	if cas(p.ModifyIndex-1, "x") || !cas(p.ModifyIndex, "y") {
		t.Error("cas does not hold")
	}
	if ok, _, err := kv.DeleteCAS(p, nil); ok || err != nil {
		t.Errorf("stale delete = %v, %v", ok, err)
	}
	if _, err := kv.DeleteTree("a/", nil); err != nil {
		t.Fatal(err)
	}
	if keys, _, err := kv.Keys("a/", "", nil); err != nil || len(keys) != 0 {
		t.Errorf("after delete: %v, %v", keys, err)
	}
	if code, body, h := a.do(t, "GET", "/v1/kv/c?raw", ""); code != 200 || body != "y" || h.Get("Content-Security-Policy") != "sandbox" {
		t.Errorf("raw = %d %s %v", code, body, h)
	}
}

// A watch on a prefix wakes for a deletion under it, and not for another key.
func TestKVBlocking(t *testing.T) {
	a := start(t, nil)
	kv := a.client.KV()
	for _, key := range []string{"a/1", "a/2"} {
		kv.Put(&api.KVPair{Key: key}, nil)
	}
	_, meta, err := kv.List("a/", nil)
	if err != nil {
		t.Fatal(err)
	}
	woke := make(chan api.KVPairs, 1)
	go func() {
		pairs, _, _ := kv.List("a/", &api.QueryOptions{WaitIndex: meta.LastIndex, WaitTime: 20 * time.Second})
		woke <- pairs
	}()
	kv.Put(&api.KVPair{Key: "b"}, nil)
	select {
	case <-woke:
		t.Fatal("woken by another key")
	case <-time.After(100 * time.Millisecond):
	}
	kv.Delete("a/2", nil)
	if pairs := <-woke; len(pairs) != 1 {
		t.Errorf("pairs = %v", pairs)
	}
}

func TestLock(t *testing.T) {
	a := start(t, nil)
	opts := func() *api.LockOptions {
		return &api.LockOptions{Key: "lock", SessionOpts: &api.SessionEntry{TTL: "10s", LockDelay: time.Millisecond, Behavior: "release"}}
	}
	first := must[*api.Lock](t)(a.client.LockOpts(opts()))
	lost := must[<-chan struct{}](t)(first.Lock(nil))
	second := must[*api.Lock](t)(a.client.LockOpts(opts()))
	got := make(chan error, 1)
	go func() { _, err := second.Lock(nil); got <- err }()
	select {
	case <-got:
		t.Fatal("two holders")
	case <-time.After(100 * time.Millisecond):
	}
	if err := first.Unlock(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	<-lost
	p, _, _ := a.client.KV().Get("lock", nil)
	if p.LockIndex != 2 || p.Session == "" {
		t.Errorf("pair = %+v", p)
	}
	// The session dies: the lock is free.
	if _, err := a.client.Session().Destroy(p.Session, nil); err != nil {
		t.Fatal(err)
	}
	time.Sleep(5 * time.Millisecond) // past the lock delay; the client would try again after 5 s
	third := must[*api.Lock](t)(a.client.LockOpts(opts()))
	if _, err := third.Lock(nil); err != nil {
		t.Fatal(err)
	}
	if ok, _, err := a.client.KV().Acquire(&api.KVPair{Key: "lock", Session: "none"}, nil); ok || err == nil || !strings.Contains(err.Error(), `invalid session "none"`) || !api.IsRetryableError(err) {
		t.Errorf("bad session: %v, %v", ok, err)
	}
}

func TestSession(t *testing.T) {
	a := start(t, nil)
	ses := a.client.Session()
	id, _, err := ses.Create(&api.SessionEntry{Name: "n", TTL: "15s", LockDelay: 3 * time.Second}, nil)
	if err != nil {
		t.Fatal(err)
	}
	e, _, err := ses.Info(id, nil)
	if err != nil || e.Node != "mm1" || e.TTL != "15s" || e.Behavior != "release" || e.LockDelay != 3*time.Second || !slices.Equal(e.NodeChecks, []string{"serfHealth"}) {
		t.Errorf("info = %+v, %v", e, err)
	}
	if e, _, err := ses.Renew(id, nil); err != nil || e == nil || e.ID != id {
		t.Errorf("renew = %+v, %v", e, err)
	}
	if e, _, err := ses.Renew("none", nil); err != nil || e != nil {
		t.Errorf("renew unknown = %+v, %v", e, err)
	}
	if l, _, err := ses.Node("mm1", nil); err != nil || len(l) != 1 {
		t.Errorf("node = %v, %v", l, err)
	}
	if _, _, err := ses.Create(&api.SessionEntry{TTL: "5s"}, nil); err == nil || !strings.Contains(err.Error(), "Invalid Session TTL '5000000000', must be between [10s=24h0m0s]") {
		t.Errorf("short TTL: %v", err)
	}
	if _, _, err := ses.Create(&api.SessionEntry{Node: "none"}, nil); err == nil {
		t.Error("a session on an unknown node")
	}
	if _, _, err := ses.Create(&api.SessionEntry{NodeChecks: []string{"none"}}, nil); err == nil || !strings.Contains(err.Error(), "Missing check 'none' registration") {
		t.Errorf("unknown check: %v", err)
	}
	if _, err := ses.Destroy(id, nil); err != nil {
		t.Fatal(err)
	}
	if l, _, err := ses.List(nil); err != nil || len(l) != 0 {
		t.Errorf("list = %v, %v", l, err)
	}
}

func TestTxn(t *testing.T) {
	a := start(t, nil)
	txn := a.client.Txn()
	ok, res, _, err := txn.Txn(api.TxnOps{
		{KV: &api.KVTxnOp{Verb: api.KVSet, Key: "a", Value: []byte("1")}},
		{KV: &api.KVTxnOp{Verb: api.KVGet, Key: "a"}},
	}, nil)
	if err != nil || !ok || len(res.Results) != 2 || res.Results[0].KV.Value != nil || string(res.Results[1].KV.Value) != "1" {
		t.Fatalf("txn = %v, %+v, %v", ok, res, err)
	}
	ok, res, _, err = txn.Txn(api.TxnOps{
		{KV: &api.KVTxnOp{Verb: api.KVSet, Key: "b"}},
		{KV: &api.KVTxnOp{Verb: api.KVCheckNotExists, Key: "a"}},
	}, nil)
	if err != nil || ok || len(res.Errors) != 1 || res.Errors[0].OpIndex != 1 {
		t.Fatalf("txn = %v, %+v, %v", ok, res, err)
	}
	before := a.Store.Index()
	ok, res, _, err = txn.Txn(api.TxnOps{{KV: &api.KVTxnOp{Verb: api.KVGetTree, Key: ""}}}, &api.QueryOptions{AllowStale: true})
	if err != nil || !ok || len(res.Results) != 1 || a.Store.Index() != before {
		t.Errorf("read = %v, %+v, %v", ok, res, err)
	}
	ops := make(api.TxnOps, 129)
	for i := range ops {
		ops[i] = &api.TxnOp{KV: &api.KVTxnOp{Verb: api.KVGet, Key: "a"}}
	}
	if _, _, _, err := txn.Txn(ops, nil); err == nil || !strings.Contains(err.Error(), "too many operations (129 > 128)") {
		t.Errorf("129 operations: %v", err)
	}
}

func TestEvents(t *testing.T) {
	a := start(t, nil)
	ev := a.client.Event()
	id, _, err := ev.Fire(&api.UserEvent{Name: "deploy", Payload: []byte("x")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	l, meta, err := ev.List("deploy", nil)
	if err != nil || len(l) != 1 || l[0].ID != id || string(l[0].Payload) != "x" || meta.LastIndex != ev.IDToIndex(id) {
		t.Fatalf("list = %+v, %+v, %v", l, meta, err)
	}
	woke := make(chan int, 1)
	go func() {
		l, _, _ := ev.List("deploy", &api.QueryOptions{WaitIndex: meta.LastIndex, WaitTime: 20 * time.Second})
		woke <- len(l)
	}()
	ev.Fire(&api.UserEvent{Name: "deploy"}, nil)
	if n := <-woke; n != 2 {
		t.Errorf("%d events", n)
	}
}

func TestErrors(t *testing.T) {
	a := start(t, nil)
	big := strings.Repeat("x", 512<<10+1)
	tests := []struct {
		method, path, body string
		code               int
		want               string
	}{
		{"GET", "/v1/none", "", 404, "Invalid URL path: not a recognized HTTP API endpoint"},
		{"POST", "/v1/kv/a", "", 405, "method POST not allowed"},
		{"GET", "/v1/kv/a?index=x", "", 400, "Invalid index"},
		{"GET", "/v1/kv/a?wait=x", "", 400, "Invalid wait time"},
		{"GET", "/v1/kv/a?stale&consistent", "", 400, "Cannot specify ?stale with ?consistent, conflicting semantics."},
		{"GET", "/v1/kv/a?dc=dc9", "", 500, "No path to datacenter"},
		{"GET", "/v1/kv/", "", 400, "Missing key name"},
		{"GET", "/v1/kv/?keys", "", 200, "[]"},
		{"GET", "/v1/kv/a?recurse", "", 404, ""},
		{"PUT", "/v1/kv/a?cas=1&acquire=s", "", 400, "Conflicting flags: acquire=s&cas=1"},
		{"PUT", "/v1/kv/a", big, 413, "Request body(524289 bytes) too large, max size: 524288 bytes."},
		{"DELETE", "/v1/kv/none", "", 200, "true"},
		{"PUT", "/v1/agent/service/register", "{}", 400, "Missing service name"},
		{"PUT", "/v1/agent/service/register", "{", 400, "Request decode failed"},
		{"PUT", "/v1/agent/service/register", `{"Name":"x","Address":"0.0.0.0"}`, 400, "Invalid service address"},
		{"PUT", "/v1/agent/maintenance", "", 400, "Missing value for enable"},
		{"GET", "/v1/catalog/node/none", "", 200, "null"},
		{"GET", "/v1/catalog/connect/x", "", 200, "[]"},
		{"GET", "/v1/snapshot", "", 501, "appliance snapshot"},
		{"PUT", "/v1/session/renew/none", "", 404, "Session id 'none' not found"},
		{"GET", "/v1/catalog/services?ns=other", "", 400, "Enterprise"},
		{"PUT", "/v1/event/fire/e", big[:301], 413, "too large"},
	}
	for _, tt := range tests {
		t.Run(tt.method+" "+tt.path, func(t *testing.T) {
			code, body, h := a.do(t, tt.method, tt.path, tt.body)
			if code != tt.code || !strings.Contains(body, tt.want) {
				t.Errorf("%d %q, want %d %q", code, body, tt.code, tt.want)
			}
			if code == 405 && h.Get("Allow") != "OPTIONS,DELETE,GET,PUT" {
				t.Errorf("Allow = %q", h.Get("Allow"))
			}
		})
	}
	if code, _, h := a.do(t, "OPTIONS", "/v1/kv/a", ""); code != 200 || h.Get("Allow") == "" {
		t.Errorf("OPTIONS = %d %v", code, h)
	}
	if _, body, _ := a.do(t, "GET", "/v1/catalog/datacenters?pretty", ""); body != "[\n    \"dc1\"\n]\n" {
		t.Errorf("pretty = %q", body)
	}
}

func TestSnakeCase(t *testing.T) {
	a := start(t, nil)
	body := `{"name":"s","port":1,"meta":{"a_b":"c"},"check":{"ttl":"1m","deregister_critical_service_after":"90m","status":"passing"}}`
	if code, text, _ := a.do(t, "PUT", "/v1/agent/service/register", body); code != 200 {
		t.Fatalf("%d %s", code, text)
	}
	rows, _, err := a.client.Health().Service("s", "", true, nil)
	if err != nil || len(rows) != 1 || rows[0].Service.Meta["a_b"] != "c" || rows[0].Checks[1].Definition.DeregisterCriticalServiceAfterDuration != 90*time.Minute {
		t.Errorf("rows = %+v, %v", rows, err)
	}
}

func TestNoLeader(t *testing.T) {
	a := start(t, func(c *consul.Config) {
		c.ReadIndex = func(context.Context) (uint64, error) { return 0, errors.New("nobody") }
		c.Leader = func() string { return "" }
	})
	_, _, err := a.client.KV().Get("a", nil)
	if !api.IsRetryableError(err) || !strings.Contains(err.Error(), "No cluster leader") {
		t.Errorf("default read: %v", err)
	}
	services, meta, err := a.client.Catalog().Services(&api.QueryOptions{AllowStale: true})
	if err != nil || len(services) == 0 || meta.KnownLeader {
		t.Errorf("stale read: %v, %+v, %v", services, meta, err)
	}
	if got := must[string](t)(a.client.Status().Leader()); got != "" {
		t.Errorf("leader = %q", got)
	}
}

func TestAuthorize(t *testing.T) {
	a := start(t, func(c *consul.Config) {
		c.Authorize = func(r *http.Request, write bool) error {
			if write && r.Header.Get("X-Consul-Token") != "good" {
				return errors.New("token lacks permission")
			}
			return nil
		}
	})
	if code, body, _ := a.do(t, "PUT", "/v1/kv/a", "x"); code != 403 || !strings.HasPrefix(body, "Permission denied") {
		t.Errorf("%d %s", code, body)
	}
	if _, err := a.client.KV().Put(&api.KVPair{Key: "a"}, &api.WriteOptions{Token: "good"}); err != nil {
		t.Error(err)
	}
}
