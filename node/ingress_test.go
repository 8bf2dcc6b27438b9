package node

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"appliance/discovery"
	"appliance/discovery/discoverytest"
	"appliance/lb"
	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"

	"pgregory.net/rapid"
)

var yes, no = true, false

// web is an app with one checked port.
func web(id string, routes ...model.Route) model.AppSpec {
	return model.AppSpec{ID: id, Image: "web", Instances: 2, Ports: []model.Port{{Name: "http", ContainerPort: 8000}},
		Checks: []model.Check{{Type: "http", Path: "/"}}, Routes: routes}
}

// town is a cluster with two agents.
func town() *discoverytest.Cluster {
	c := discoverytest.New()
	c.Node("ms1", "10.0.0.1", model.RoleAgent)
	c.Node("ms2", "10.0.0.2", model.RoleAgent)
	return c
}

// observe reports a running task of an agent; once is whether it was ever
// ready.
func observe(c *discoverytest.Cluster, id string, seq uint64, healthy *bool, once bool) {
	st := model.TaskStatus{Task: id, State: model.TaskRunning, Healthy: healthy, Seq: seq, At: discoverytest.Start}
	if once {
		st.ReadyAt = discoverytest.Start
	}
	t := state.Tasks.Get(c.Store.Snapshot(), id)
	c.Must(&command.Observe{Node: t.Node, Statuses: []model.TaskStatus{st}})
}

// tableOf derives the proxies' table, which must always be acceptable to them.
func tableOf(t interface{ Fatal(...any) }, c *discoverytest.Cluster, live discovery.Liveness) *lb.Table {
	snap := c.Store.Snapshot()
	table, err := lb.NewTable(ingressTable(snap, discovery.Catalog(snap, live)))
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// backendsOf gives "task" or "task draining" for each backend behind a host.
func backendsOf(t *testing.T, table *lb.Table, host, path string) []string {
	t.Helper()
	r, ok := table.Match(host, path)
	if !ok {
		t.Fatalf("nobody answers %s%s", host, path)
	}
	s, _ := table.Service(r.Service)
	var out []string
	for _, b := range s.Backends {
		if b.Draining {
			b.ID += " draining"
		}
		out = append(out, b.ID)
	}
	slices.Sort(out)
	return out
}

func TestBackendsFollowTheTasks(t *testing.T) {
	cases := []struct {
		name string
		do   func(c *discoverytest.Cluster)
		want []string
	}{
		{"both ready", func(c *discoverytest.Cluster) { observe(c, "a", 1, &yes, true); observe(c, "b", 1, &yes, true) }, []string{"a", "b"}},
		{"one never ready", func(c *discoverytest.Cluster) { observe(c, "a", 1, &yes, true); observe(c, "b", 1, nil, false) }, []string{"a"}},
		{"one unhealthy", func(c *discoverytest.Cluster) { observe(c, "a", 1, &yes, true); observe(c, "b", 1, &no, true) }, []string{"a"}},
		{"all unhealthy, both once ready", func(c *discoverytest.Cluster) { observe(c, "a", 1, &no, true); observe(c, "b", 1, &no, true) }, []string{"a", "b"}},
		{"all unhealthy, one once ready", func(c *discoverytest.Cluster) { observe(c, "a", 1, &no, true); observe(c, "b", 1, &no, false) }, []string{"a"}},
		{"none was ever ready", func(c *discoverytest.Cluster) { observe(c, "a", 1, nil, false); observe(c, "b", 1, &no, false) }, nil},
		{"one stopping", func(c *discoverytest.Cluster) {
			observe(c, "a", 1, &yes, true)
			observe(c, "b", 1, &yes, true)
			c.Stop("b")
		}, []string{"a", "b draining"}},
		{"one stopping, the other in doubt", func(c *discoverytest.Cluster) {
			observe(c, "a", 1, &no, true)
			observe(c, "b", 1, &yes, true)
			c.Stop("b")
		}, []string{"a", "b draining"}},
		{"one ended", func(c *discoverytest.Cluster) {
			observe(c, "a", 1, &yes, true)
			c.Observe("b", model.TaskFailed, nil)
		}, []string{"a"}},
		{"node down", func(c *discoverytest.Cluster) {
			observe(c, "a", 1, &yes, true)
			observe(c, "b", 1, &yes, true)
			c.Status("ms2", model.NodeDown)
		}, []string{"a"}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			c := town()
			c.Deploy(web("/test/web", model.Route{Host: "app-test"}))
			c.Task("a", "/test/web", "ms1", 31000)
			c.Task("b", "/test/web", "ms2", 31000)
			tc.do(c)
			if got := backendsOf(t, tableOf(t, c, discoverytest.NewLiveness()), "app-test", "/"); !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestOlderAppKeepsAContestedHost(t *testing.T) {
	cases := []struct {
		name         string
		older, newer model.Route
		path         string
		owner        string
	}{
		{"same", model.Route{Host: "shop"}, model.Route{Host: "shop"}, "/", "/test/z"},
		{"same but for the slash", model.Route{Host: "shop", Path: "/"}, model.Route{Host: "shop"}, "/", "/test/z"},
		{"same but for a trailing slash", model.Route{Host: "shop", Path: "/cart"}, model.Route{Host: "shop", Path: "/cart/"}, "/cart/1", "/test/z"},
		{"other path", model.Route{Host: "shop", Path: "/cart"}, model.Route{Host: "shop"}, "/", "/production/a"},
		{"other host", model.Route{Host: "shop-2"}, model.Route{Host: "shop"}, "/", "/production/a"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			c := town()
			c.Deploy(web("/test/z", tc.older)) // later by name, earlier by age
			c.Deploy(web("/production/a", tc.newer))
			r, ok := tableOf(t, c, discoverytest.NewLiveness()).Match("shop", tc.path)
			if !ok || r.Service != tc.owner {
				t.Errorf("%q answers, want %q", r.Service, tc.owner)
			}
		})
	}
}

func TestAppWithoutRoutesHasItsServiceName(t *testing.T) {
	c := town()
	c.Deploy(web("/test/shop/cart"))
	c.Deploy(model.AppSpec{ID: "/test/batch", Image: "batch", Instances: 1}) // has no port
	if hosts := tableOf(t, c, discoverytest.NewLiveness()).Hosts(); !reflect.DeepEqual(hosts, []string{"shop-cart-test"}) {
		t.Error(hosts)
	}
}

func TestRoutesToSeveralPorts(t *testing.T) {
	c := town()
	spec := web("/test/web", model.Route{Host: "app-test"}, model.Route{Host: "admin-test", Port: 1}, model.Route{Host: "app-test", Path: "/admin", Port: 1})
	spec.Ports = append(spec.Ports, model.Port{Name: "admin", ContainerPort: 9000})
	c.Deploy(spec)
	c.Task("a", "/test/web", "ms1", 31000, 31001)
	observe(c, "a", 1, &yes, true)
	table := tableOf(t, c, discoverytest.NewLiveness())
	for url, want := range map[[2]string]string{
		{"app-test", "/"}: "10.0.0.1:31000", {"admin-test", "/"}: "10.0.0.1:31001", {"app-test", "/admin/x"}: "10.0.0.1:31001",
	} {
		r, _ := table.Match(url[0], url[1])
		if s, _ := table.Service(r.Service); len(s.Backends) != 1 || s.Backends[0].Addr != want {
			t.Errorf("%v goes to %v", url, s.Backends)
		}
	}
}

// Whatever is reported, in whatever order: the proxies accept the table, and
// while an instance that was ever ready runs and is not asked to stop, they
// have somebody to ask.
func TestDoubtNeverEmptiesABackendSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, live := town(), discoverytest.NewLiveness()
		c.Deploy(web("/test/web", model.Route{Host: "app-test"}))
		var ids []string
		seq := map[string]uint64{}
		t.Repeat(map[string]func(*rapid.T){
			"start": func(t *rapid.T) {
				id := fmt.Sprint("t", len(ids))
				ids = append(ids, id)
				c.Task(id, "/test/web", rapid.SampledFrom([]string{"ms1", "ms2"}).Draw(t, "node"), 31000+len(ids))
			},
			"report": func(t *rapid.T) {
				if len(ids) == 0 {
					t.Skip("no task")
				}
				id := rapid.SampledFrom(ids).Draw(t, "task")
				seq[id]++
				healthy := rapid.SampledFrom([]*bool{nil, &yes, &no}).Draw(t, "healthy")
				was := state.Tasks.Get(c.Store.Snapshot(), id)
				observe(c, id, seq[id], healthy, healthy == &yes || !was.Status.ReadyAt.IsZero())
			},
			"stop": func(t *rapid.T) {
				if len(ids) > 0 {
					c.Stop(rapid.SampledFrom(ids).Draw(t, "task"))
				}
			},
			"doubt": func(t *rapid.T) {
				name := rapid.SampledFrom([]string{"ms1", "ms2"}).Draw(t, "node")
				if rapid.Bool().Draw(t, "alive") {
					live.Revive(name)
				} else {
					live.Kill(name, discoverytest.Start.Add(time.Duration(rapid.IntRange(0, 100).Draw(t, "at"))*time.Second))
				}
			},
			"": func(t *rapid.T) {
				table := tableOf(t, c, live)
				s, _ := table.Service("/test/web")
				offered := slices.ContainsFunc(s.Backends, func(b lb.Backend) bool { return !b.Draining })
				for task := range state.Tasks.All(c.Store.Snapshot()) {
					if task.Status.State == model.TaskRunning && !task.Stop && !task.Status.ReadyAt.IsZero() && !offered {
						t.Fatalf("%s was ready, and the proxies have only %v", task.ID, s.Backends)
					}
				}
			},
		})
	})
}
