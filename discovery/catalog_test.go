package discovery_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"appliance/discovery"
	"appliance/discovery/discoverytest"
	"appliance/node/model"
	"appliance/raft/command"

	"pgregory.net/rapid"
)

var yes, no = true, false

// notejam is a cluster of two nodes and one master with one app.
func notejam(change func(*model.AppSpec)) *discoverytest.Cluster {
	c := discoverytest.New()
	c.Node("mm1", "10.0.0.1", model.RoleMaster)
	c.Node("ms1", "10.0.0.11", model.RoleAgent)
	c.Node("ms2", "10.0.0.12", model.RoleAgent)
	spec := model.AppSpec{ID: "/test/notejam", Instances: 2, Ports: []model.Port{{Name: "http", ContainerPort: 80}}}
	if change != nil {
		change(&spec)
	}
	c.Deploy(spec)
	return c
}

func table(c *discoverytest.Cluster) *discovery.Table {
	return discovery.Catalog(c.Store.Snapshot(), discovery.AllAlive{})
}

func TestTaskEndpoint(t *testing.T) {
	c := notejam(nil)
	c.Run("t1", "/test/notejam", "ms1", 31001)
	s := table(c).Service("notejam-test")
	if s == nil || len(s.Offered()) != 1 {
		t.Fatalf("service = %+v", s)
	}
	e := s.Offered()[0]
	if e.Addr != "10.0.0.11" || e.Port != 31001 || e.Node != "ms1" || e.NodeID != "id-ms1" || e.ID != "ms1:t1:80" {
		t.Errorf("endpoint = %+v", e)
	}
	if !slices.Equal(e.Tags, []string{"test", "notejam"}) || e.Meta["release"] != "1" || e.App != "/test/notejam" || e.Release != 1 {
		t.Errorf("endpoint = %+v", e)
	}
	if got := table(c).App("/test/notejam"); len(got) != 1 {
		t.Errorf("App = %v", got)
	}
}

func TestConventions(t *testing.T) {
	two := []model.Port{{ContainerPort: 80}, {ContainerPort: 53, Protocol: "udp"}}
	tests := []struct {
		name   string
		ports  []model.Port
		env    map[string]string
		labels map[string]string
		want   []string // service|id|tags
	}{
		{"default", two[:1], nil, nil, []string{"notejam-test|ms1:t1:80|test,notejam"}},
		{"several ports get a suffix", two, nil, nil, []string{"notejam-test-53|ms1:t1:53:udp|test,notejam,udp", "notejam-test-80|ms1:t1:80|test,notejam"}},
		{"name", two[:1], map[string]string{"SERVICE_NAME": "web"}, nil, []string{"web|ms1:t1:80|test,notejam"}},
		{"labels win", two[:1], map[string]string{"SERVICE_NAME": "web"}, map[string]string{"SERVICE_NAME": "lab"}, []string{"lab|ms1:t1:80|test,notejam"}},
		{"port name", two, map[string]string{"SERVICE_NAME": "web", "SERVICE_53_NAME": "dns"}, nil, []string{"dns|ms1:t1:53:udp|test,notejam,udp", "web-80|ms1:t1:80|test,notejam"}},
		{"port wins over label", two, map[string]string{"SERVICE_53_NAME": "dns"}, map[string]string{"SERVICE_NAME": "lab"}, []string{"dns|ms1:t1:53:udp|test,notejam,udp", "lab-80|ms1:t1:80|test,notejam"}},
		{"tags", two[:1], map[string]string{"SERVICE_TAGS": `a,b\,c, ,d`}, nil, []string{"notejam-test|ms1:t1:80|a,b,c,d,test,notejam"}},
		{"ignore", two[:1], map[string]string{"SERVICE_IGNORE": "true"}, nil, nil},
		{"ignore one", two, map[string]string{"SERVICE_53_IGNORE": "1"}, nil, []string{"notejam-test-80|ms1:t1:80|test,notejam"}},
		{"id", two[:1], map[string]string{"SERVICE_ID": "x"}, nil, []string{"notejam-test|x|test,notejam"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := notejam(func(s *model.AppSpec) { s.Ports, s.Env, s.Labels = tt.ports, tt.env, tt.labels })
			c.Run("t1", "/test/notejam", "ms1", 31001, 31002)
			var got []string
			for _, e := range table(c).OnNode("ms1") {
				got = append(got, e.Service+"|"+e.ID+"|"+strings.Join(e.Tags, ","))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

func TestConventionMeta(t *testing.T) {
	c := notejam(func(s *model.AppSpec) {
		s.Env = map[string]string{"SERVICE_COLOR": "red", "SERVICE_CHECK_HTTP": "/x", "OTHER": "1"}
	})
	c.Run("t1", "/test/notejam", "ms1", 31001)
	m := table(c).Service("notejam-test").Endpoints[0].Meta
	if m["color"] != "red" || m["check_http"] != "/x" || m["other"] != "" || m["task"] != "t1" {
		t.Errorf("meta = %v", m)
	}
}

func TestTaskHealth(t *testing.T) {
	checked := func(s *model.AppSpec) { s.Checks = []model.Check{{Type: "http", Path: "/"}} }
	tests := []struct {
		name     string
		spec     func(*model.AppSpec)
		do       func(*discoverytest.Cluster)
		listed   bool
		offered  bool
		draining bool
	}{
		{"staging", nil, func(c *discoverytest.Cluster) {}, false, false, false},
		{"starting", nil, func(c *discoverytest.Cluster) { c.Observe("t1", model.TaskStarting, nil) }, false, false, false},
		{"running without checks", nil, func(c *discoverytest.Cluster) { c.Observe("t1", model.TaskRunning, nil) }, true, true, false},
		{"running, no answer yet", checked, func(c *discoverytest.Cluster) { c.Observe("t1", model.TaskRunning, nil) }, true, false, false},
		{"healthy", checked, func(c *discoverytest.Cluster) { c.Observe("t1", model.TaskRunning, &yes) }, true, true, false},
		{"unhealthy", checked, func(c *discoverytest.Cluster) { c.Observe("t1", model.TaskRunning, &no) }, true, false, false},
		{"stopped", nil, func(c *discoverytest.Cluster) { c.Observe("t1", model.TaskRunning, nil); c.Stop("t1") }, true, false, true},
		{"killing", nil, func(c *discoverytest.Cluster) { c.Observe("t1", model.TaskKilling, nil) }, true, false, true},
		{"failed", nil, func(c *discoverytest.Cluster) { c.Observe("t1", model.TaskFailed, nil) }, false, false, false},
		{"node down", nil, func(c *discoverytest.Cluster) {
			c.Observe("t1", model.TaskRunning, nil)
			c.Status("ms1", model.NodeDown)
		}, false, false, false},
		{"network none", func(s *model.AppSpec) { s.Network = model.NetworkNone }, func(c *discoverytest.Cluster) { c.Observe("t1", model.TaskRunning, nil) }, false, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := notejam(tt.spec)
			c.Task("t1", "/test/notejam", "ms1", 31001)
			tt.do(c)
			s := table(c).Service("notejam-test")
			if (s != nil) != tt.listed {
				t.Fatalf("listed = %v", s != nil)
			}
			if got := len(s.Offered()) == 1; got != tt.offered {
				t.Errorf("offered = %v, want %v: %+v", got, tt.offered, s.Endpoints[0])
			}
			if s != nil && s.Endpoints[0].Draining != tt.draining {
				t.Errorf("draining = %v", s.Endpoints[0].Draining)
			}
		})
	}
}

func TestExternalServices(t *testing.T) {
	c := notejam(nil)
	c.Must(
		&command.RegisterService{Service: &model.ExternalService{Node: "db1", NodeAddr: "10.9.9.9", ID: "pg", Name: "postgres", Port: 5432},
			Checks: []model.ExternalCheck{{Node: "db1", ID: "c1", Service: "pg", Status: "warning", Output: "slow"}}},
		&command.RegisterService{Service: &model.ExternalService{Node: "ms1", ID: "r", Name: "redis", Address: "10.1.1.1", Port: 6379}},
	)
	tb := table(c)
	pg := tb.Service("postgres").Offered()
	if len(pg) != 1 || pg[0].Addr != "10.9.9.9" || pg[0].Status != discovery.Warning || pg[0].Output != "slow" {
		t.Fatalf("postgres = %+v", pg)
	}
	if tb.Node("db1").Cluster() || tb.Node("db1").Addr != "10.9.9.9" {
		t.Errorf("node = %+v", tb.Node("db1"))
	}
	if r := tb.Service("redis").Offered(); len(r) != 1 || r[0].Addr != "10.1.1.1" {
		t.Errorf("redis = %+v", r)
	}
	if got := tb.Names(); !slices.Equal(got, []string{"consul", "postgres", "redis"}) {
		t.Errorf("names = %v", got)
	}
	c.Must(&command.RegisterService{Checks: []model.ExternalCheck{{Node: "ms1", ID: discovery.NodeMaintenance, Status: "critical", Output: "works"}}})
	if r := table(c).Service("redis"); len(r.Offered()) != 0 || !strings.Contains(r.Endpoints[0].Output, "works") {
		t.Errorf("redis under maintenance = %+v", r.Endpoints[0])
	}
	c.Status("ms1", model.NodeLeft)
	if tb := table(c); tb.Service("redis") != nil || tb.Node("ms1") != nil {
		t.Error("a node that left keeps its registrations")
	}
}

func TestDoubtNeverEmpties(t *testing.T) {
	c := notejam(nil)
	c.Run("t1", "/test/notejam", "ms1", 31001)
	c.Run("t2", "/test/notejam", "ms2", 31001)
	at := discoverytest.Start
	offered := func(l *discoverytest.Liveness) (nodes []string) {
		for _, e := range discovery.Catalog(c.Store.Snapshot(), l).Service("notejam-test").Offered() {
			nodes = append(nodes, e.Node)
		}
		return nodes
	}
	l := discoverytest.NewLiveness()
	l.Kill("ms1", at)
	if got := offered(l); !slices.Equal(got, []string{"ms2"}) {
		t.Errorf("one dead: %v", got)
	}
	l.Kill("ms2", at.Add(time.Second))
	if got := offered(l); !slices.Equal(got, []string{"ms1", "ms2"}) {
		t.Errorf("both dead within the window: %v", got)
	}
	l.Kill("ms2", at.Add(time.Hour))
	if got := offered(l); !slices.Equal(got, []string{"ms2"}) {
		t.Errorf("second dead much later: %v", got)
	}
	c.Observe("t2", model.TaskFailed, nil)
	if got := offered(l); !slices.Equal(got, []string{"ms1"}) {
		t.Errorf("the log says that the kept one is over: %v", got)
	}
}

// TestCatalogProperties drives random histories and checks what consumers rely
// on: doubt never empties a set, no bad endpoint is offered, rebuilding step by
// step gives what one computation gives, and indexes move with the content.
func TestCatalogProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := notejam(nil)
		l := discoverytest.NewLiveness()
		nodes := []string{"ms1", "ms2"}
		prev := discovery.Catalog(c.Store.Snapshot(), l)
		tasks := 0
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			step(rt, c, l, nodes, &tasks)
			next := discovery.Rebuild(prev, c.Store.Snapshot(), l)
			checkTable(rt, next, l)
			checkIndexes(rt, prev, next)
			checkAlike(rt, next, discovery.Catalog(c.Store.Snapshot(), l))
			prev = next
		}
	})
}

func step(rt *rapid.T, c *discoverytest.Cluster, l *discoverytest.Liveness, nodes []string, tasks *int) {
	node := rapid.SampledFrom(nodes).Draw(rt, "node")
	id := "t" + string(rune('a'+rapid.IntRange(0, max(*tasks-1, 0)).Draw(rt, "task")))
	switch op := rapid.IntRange(0, 6).Draw(rt, "op"); {
	case op == 0 && *tasks < 20:
		id = "t" + string(rune('a'+*tasks))
		*tasks++
		c.Task(id, "/test/notejam", node, 31000+*tasks)
	case op == 1 && *tasks > 0:
		s := rapid.SampledFrom([]model.TaskState{model.TaskRunning, model.TaskRunning, model.TaskKilling, model.TaskFailed}).Draw(rt, "state")
		c.Observe(id, s, rapid.SampledFrom([]*bool{nil, &yes, &no}).Draw(rt, "healthy"))
	case op == 2 && *tasks > 0:
		c.Stop(id)
	case op == 3:
		l.Kill(node, discoverytest.Start.Add(time.Duration(rapid.IntRange(0, 20).Draw(rt, "at"))*time.Second))
	case op == 4:
		l.Revive(node)
	case op == 5:
		c.Must(&command.RegisterService{Service: &model.ExternalService{Node: node, ID: "x", Name: "ext", Port: rapid.IntRange(1, 3).Draw(rt, "port")}})
	case op == 6:
		command.Do(context.Background(), c, &command.DeregisterService{Node: node, ID: "x"})
	}
}

func checkTable(rt *rapid.T, tb *discovery.Table, l *discoverytest.Liveness) {
	for _, name := range tb.Names() {
		s := tb.Service(name)
		good, alive := 0, 0
		for _, e := range s.Endpoints {
			own := true
			for _, c := range e.Checks {
				own = own && c.Status != discovery.Critical
			}
			if !own || e.Draining {
				if e.Offered() {
					rt.Fatalf("%s: bad endpoint is offered: %+v", name, e)
				}
				continue
			}
			good++
			if ok, _ := l.Alive(e.NodeID); ok {
				alive++
				if !e.Offered() || e.Doubted {
					rt.Fatalf("%s: good endpoint is not offered: %+v", name, e)
				}
			} else if e.Offered() != e.Doubted {
				rt.Fatalf("%s: endpoint on a suspected node: %+v", name, e)
			}
		}
		if good > 0 && len(s.Offered()) == 0 {
			rt.Fatalf("%s: doubt emptied the set", name)
		}
		if alive > 0 && len(s.Offered()) != alive {
			rt.Fatalf("%s: %d offered, %d alive", name, len(s.Offered()), alive)
		}
	}
}

func checkIndexes(rt *rapid.T, prev, next *discovery.Table) {
	if next.Index < prev.Index {
		rt.Fatalf("index went from %d to %d", prev.Index, next.Index)
	}
	for _, name := range append(slices.Clone(prev.Names()), next.Names()...) {
		before, after := describe(prev, name), describe(next, name)
		if i, j := prev.ServiceIndex(name), next.ServiceIndex(name); (before != after) && j <= i {
			rt.Fatalf("%s changed, its index went from %d to %d\n%s\n%s", name, i, j, before, after)
		} else if before == after && i != j && after != "" {
			rt.Fatalf("%s did not change, its index went from %d to %d\n%s", name, i, j, after)
		}
	}
}

func checkAlike(rt *rapid.T, a, b *discovery.Table) {
	if !slices.Equal(a.Names(), b.Names()) {
		rt.Fatalf("names %v and %v", a.Names(), b.Names())
	}
	for _, name := range a.Names() {
		if x, y := describe(a, name), describe(b, name); x != y {
			rt.Fatalf("%s: step by step\n%s\nat once\n%s", name, x, y)
		}
	}
}

// describe prints what consumers see of a service, its nodes included.
func describe(tb *discovery.Table, name string) string {
	s := tb.Service(name)
	if s == nil {
		return ""
	}
	var b strings.Builder
	for _, e := range s.Endpoints {
		b.WriteString(strings.Join([]string{e.Node, e.ID, e.Addr, string(rune(e.Port)), string(e.Status), string(tb.Node(e.Node).Status), e.Output, strings.Join(e.Tags, ",")}, "|"))
		b.WriteByte(byte(e.ModifyIndex))
		if e.Doubted {
			b.WriteByte('?')
		}
	}
	return b.String()
}

func TestWatcher(t *testing.T) {
	c := notejam(nil)
	l := discoverytest.NewLiveness()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	w := discovery.NewWatcher(c.Store, l)
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()

	first := w.Current()
	c.Run("t1", "/test/notejam", "ms1", 31001)
	if err := w.Fresh(ctx); err != nil {
		t.Fatal(err)
	}
	if got := w.Current().Service("notejam-test").Offered(); len(got) != 1 {
		t.Fatalf("offered = %v", got)
	}
	tb, err := w.Next(ctx, first)
	if err != nil || tb.Index <= first.Index {
		t.Fatalf("next = %v, %v", tb, err)
	}
	c.Run("t2", "/test/notejam", "ms2", 31001)
	if err := w.Fresh(ctx); err != nil {
		t.Fatal(err)
	}
	before := w.Current()
	l.Kill("ms1", discoverytest.Start)
	after, err := w.Next(ctx, before)
	if err != nil || len(after.Service("notejam-test").Offered()) != 1 {
		t.Fatalf("after gossip's word: %v", err)
	}
	// A change that the catalog does not show moves no index.
	c.Must(&command.RecordEvent{Event: model.Event{Kind: "test", Text: "x"}})
	if err := w.Fresh(ctx); err != nil || w.Current() != after {
		t.Errorf("irrelevant change moved the table: %v", err)
	}
	cancel()
	if err := <-done; err != context.Canceled {
		t.Errorf("Run = %v", err)
	}
}

func FuzzSplitTags(f *testing.F) {
	for _, s := range []string{"", "a,b", `a\,b`, `\`, `,,\,`, `x\\,y`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, tag := range discovery.SplitTags(s) {
			if tag == "" || tag != strings.TrimSpace(tag) {
				t.Errorf("%q has the tag %q", s, tag)
			}
		}
	})
}

func BenchmarkRebuild(b *testing.B) {
	c := notejam(nil)
	for i := range 900 {
		c.Run("t"+string(rune('a'+i)), "/test/notejam", "ms1", 31000+i)
	}
	l := discoverytest.NewLiveness()
	prev := discovery.Catalog(c.Store.Snapshot(), l)
	b.ReportAllocs()
	for b.Loop() {
		prev = discovery.Rebuild(prev, c.Store.Snapshot(), l)
	}
}
