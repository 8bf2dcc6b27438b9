package sched

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"appliance/node/model"

	"pgregory.net/rapid"
)

var now = time.Unix(1000000, 0)

// agent makes an offer of an idle node; attributes are "k=v".
func agent(id string, cpus float64, attributes ...string) Offer {
	n := &model.Node{ID: id, Name: id, Role: model.RoleAgent, Status: model.NodeReady,
		Capacity: model.Resources{CPUs: cpus, Memory: 1000}, Attributes: map[string]string{}, PortRange: [2]int{31000, 31009}}
	for _, a := range attributes {
		k, v, _ := strings.Cut(a, "=")
		n.Attributes[k] = v
	}
	return Offer{Node: n, Free: n.Capacity, Ports: map[int]bool{}}
}

func queue(spec model.AppSpec, n int) []Pending {
	if spec.ID == "" {
		spec.ID = "/test/app"
	}
	app := &model.App{ID: spec.ID, Env: "test"}
	env := &model.Environment{Name: "test", Selector: map[string]string{}}
	var out []Pending
	for i := range n {
		t := &model.Task{ID: fmt.Sprintf("%s.%03d", spec.ID, i), App: spec.ID, Release: 1, Resources: spec.Resources, CreatedAt: now}
		out = append(out, Pending{Task: t, Spec: &spec, App: app, Env: env})
	}
	return out
}

func perNode(m Matched) map[string]int {
	out := map[string]int{}
	for _, p := range m.Placements {
		out[p.Node]++
	}
	return out
}

func TestConstraints(t *testing.T) {
	racks := func() []Offer {
		return []Offer{agent("a1", 9, "rack=a"), agent("a2", 9, "rack=a"), agent("b1", 9, "rack=b"), agent("c1", 9, "rack=c"), agent("x", 9)}
	}
	for _, c := range []struct {
		name       string
		constraint model.Constraint
		tasks      int
		placed     int
		nodes      string // allowed
		most       int    // tasks on one node
	}{
		{"unique hosts", model.Constraint{Attribute: "hostname", Operator: "UNIQUE"}, 7, 5, "a1 a2 b1 c1 x", 1},
		{"unique hosts, new name", model.Constraint{Attribute: "@hostname", Operator: "UNIQUE"}, 2, 2, "a1 a2 b1 c1 x", 1},
		{"unique racks", model.Constraint{Attribute: "rack", Operator: "UNIQUE"}, 4, 3, "a1 a2 b1 c1", 1},
		{"cluster by value", model.Constraint{Attribute: "rack", Operator: "CLUSTER", Value: "b"}, 3, 3, "b1", 3},
		{"cluster by first", model.Constraint{Attribute: "hostname", Operator: "CLUSTER"}, 3, 3, "a1", 3},
		{"is", model.Constraint{Attribute: "rack", Operator: "IS", Value: "c"}, 2, 2, "c1", 2},
		{"like", model.Constraint{Attribute: "rack", Operator: "LIKE", Value: "[ab]"}, 3, 3, "a1 a2 b1", 1},
		{"like matches the whole", model.Constraint{Attribute: "hostname", Operator: "LIKE", Value: "a"}, 1, 0, "", 0},
		{"unlike takes nodes without it", model.Constraint{Attribute: "rack", Operator: "UNLIKE", Value: "[abc]"}, 1, 1, "x", 1},
		{"max per rack", model.Constraint{Attribute: "rack", Operator: "MAX_PER", Value: "2"}, 9, 6, "a1 a2 b1 c1", 2},
		{"group by rack", model.Constraint{Attribute: "rack", Operator: "GROUP_BY"}, 6, 6, "a1 a2 b1 c1", 2},
		{"group by two racks", model.Constraint{Attribute: "rack", Operator: "GROUP_BY", Value: "2"}, 4, 4, "a1 a2 b1", 2},
		{"no such attribute", model.Constraint{Attribute: "zone", Operator: "GROUP_BY"}, 1, 0, "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := Match(queue(model.AppSpec{Constraints: []model.Constraint{c.constraint}}, c.tasks), racks(), now)
			if len(m.Placements) != c.placed {
				t.Fatalf("placed %d, want %d: %+v", len(m.Placements), c.placed, m.Waiting)
			}
			for n, count := range perNode(m) {
				if !slices.Contains(strings.Fields(c.nodes), n) || count > c.most {
					t.Errorf("%d on %s", count, n)
				}
			}
			if left := c.tasks - c.placed; left > 0 && (len(m.Waiting) != 1 || m.Waiting[0].Tasks != left || len(m.Waiting[0].Refusals) != 5) {
				t.Errorf("waiting %+v", m.Waiting)
			}
		})
	}
}

func TestSpreadThenLoad(t *testing.T) {
	offers := []Offer{agent("busy", 4), agent("idle", 4), agent("big", 40)}
	offers[0].take(&model.Task{ID: "other", App: "/test/other", Resources: model.Resources{CPUs: 2}})
	m := Match(queue(model.AppSpec{Resources: model.Resources{CPUs: 1}}, 4), offers, now)
	if got := perNode(m); got["busy"] != 1 || got["idle"] != 1 || got["big"] != 2 {
		t.Errorf("spread %v", got)
	}
	if m.Placements[0].Node == "busy" || m.Placements[3].Node != "big" {
		t.Errorf("order %+v", m.Placements)
	}
}

func TestFailingNodeIsAvoided(t *testing.T) {
	offers := []Offer{agent("bad", 4), agent("good", 4)}
	offers[0].Failed = []*model.Task{{App: "/test/app"}, {App: "/test/app"}}
	if got := perNode(Match(queue(model.AppSpec{}, 2), offers, now)); got["good"] != 2 {
		t.Errorf("spread %v", got)
	}
}

// The leader before had a clock that was hours ahead.
func TestBackoffByAnotherClockDoesNotHold(t *testing.T) {
	for wait, placed := range map[time.Duration]int{-time.Second: 1, time.Second: 0, 2 * time.Minute: 0, 3 * time.Hour: 1} {
		p := queue(model.AppSpec{}, 1)
		p[0].App.Failures, p[0].App.RetryAt = 3, now.Add(wait)
		if m := Match(p, []Offer{agent("n", 8)}, now); len(m.Placements) != placed {
			t.Errorf("next try in %v: %d placed, want %d: %+v", wait, len(m.Placements), placed, m.Waiting)
		}
	}
}

func TestRefusalsHaveNumbers(t *testing.T) {
	spec := model.AppSpec{Resources: model.Resources{CPUs: 4, Memory: 100}}
	for _, c := range []struct {
		name   string
		change func(*Pending, *Offer)
		code   model.RefusalCode
		detail string
	}{
		{"cpus", func(_ *Pending, o *Offer) { o.Free.CPUs = 1.5 }, model.RefusedCPUs, "wants 4 cpus, 1.5 free"},
		{"memory", func(_ *Pending, o *Offer) { o.Free.Memory = 10 }, model.RefusedMemory, "wants 100 MiB memory, 10 free"},
		{"draining", func(_ *Pending, o *Offer) { o.Node.Drain = true }, model.RefusedStatus, "draining"},
		{"down", func(_ *Pending, o *Offer) { o.Node.Status = model.NodeDown }, model.RefusedStatus, "down"},
		{"environment", func(p *Pending, _ *Offer) { p.Env.Selector["env"] = "test" }, model.RefusedEnvironment, "wants env=test, the node has no env"},
		{"environment gone", func(p *Pending, _ *Offer) { p.Env = nil }, model.RefusedEnvironment, "does not exist"},
		{"volume", func(p *Pending, _ *Offer) { p.Volumes = []string{"data"} }, model.RefusedVolume, "volume data"},
		{"backoff", func(p *Pending, _ *Offer) { p.App.Failures, p.App.RetryAt = 3, now.Add(time.Second) }, model.RefusedBackoff, "3 tasks failed"},
		{"port in use", func(p *Pending, o *Offer) {
			p.Spec.Ports = []model.Port{{HostPort: 9000}}
			o.take(&model.Task{ID: "holder", Ports: []int{9000}})
		}, model.RefusedPorts, "task holder has it"},
		{"port of ours", func(p *Pending, _ *Offer) { p.Spec.Ports = []model.Port{{HostPort: 7600}} }, model.RefusedPorts, "itself uses"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, o := queue(spec, 1), agent("n", 8)
			c.change(&p[0], &o)
			offers := []Offer{o}
			m := Match(p, offers, now)
			if len(m.Waiting) != 1 || len(m.Waiting[0].Refusals) != 1 {
				t.Fatalf("%+v", m)
			}
			r := m.Waiting[0].Refusals[0]
			if r.Code != c.code || !strings.Contains(r.Detail, c.detail) {
				t.Errorf("refusal %+v", r)
			}
			e := Explain(p, offers, now)
			if e == nil || e.Cause == "" || e.Fix == "" || e.Nodes[c.code] != 1 {
				t.Errorf("explanation %+v", e)
			}
		})
	}
}

func TestExplainNamesTheSmallestChange(t *testing.T) {
	p := queue(model.AppSpec{Resources: model.Resources{CPUs: 4}}, 1)
	p[0].Env.Selector["env"] = "test"
	e := Explain(p, []Offer{agent("a", 1, "env=test"), agent("b", 2.5, "env=test"), agent("c", 9)}, now)
	if !strings.Contains(e.Cause, "2 of 3 nodes lack cpus") || !strings.Contains(e.Cause, "2.5 free on b") || !strings.Contains(e.Fix, "at most 2.5 cpus, or free 1.5 on b") {
		t.Errorf("%+v", e)
	}
	if e := Explain(p, nil, now); !strings.Contains(e.Cause, "no agents") {
		t.Errorf("%+v", e)
	}
	if e := Explain(p, []Offer{agent("ok", 9, "env=test")}, now); e != nil {
		t.Errorf("%+v", e)
	}
}

func TestPriorityThenAge(t *testing.T) {
	low, old, high := queue(model.AppSpec{ID: "/test/low", Resources: model.Resources{CPUs: 1}}, 1), queue(model.AppSpec{ID: "/test/old", Resources: model.Resources{CPUs: 1}}, 1), queue(model.AppSpec{ID: "/test/high", Priority: 5, Resources: model.Resources{CPUs: 1}}, 1)
	old[0].Task.CreatedAt = now.Add(-time.Hour)
	m := Match(slices.Concat(low, old, high), []Offer{agent("n", 2)}, now)
	if len(m.Placements) != 2 || m.Placements[0].Task != "/test/high.000" || m.Placements[1].Task != "/test/old.000" {
		t.Errorf("%+v", m.Placements)
	}
}

func TestPortsRunOut(t *testing.T) {
	spec := model.AppSpec{Ports: []model.Port{{ContainerPort: 80}, {ContainerPort: 81}}}
	m := Match(queue(spec, 7), []Offer{agent("n", 1)}, now)
	if len(m.Placements) != 5 || len(m.Waiting) != 1 || m.Waiting[0].Refusals[0].Code != model.RefusedPorts {
		t.Errorf("%+v", m)
	}
}

// Whatever is asked, a node is never over-committed and no port given twice.
func TestMatchNeverOvercommits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var offers []Offer
		for i := range rapid.IntRange(0, 6).Draw(t, "nodes") {
			offers = append(offers, agent(fmt.Sprint("n", i), float64(rapid.IntRange(0, 8).Draw(t, "cpus"))))
		}
		var pending []Pending
		for i := range rapid.IntRange(1, 4).Draw(t, "apps") {
			spec := model.AppSpec{ID: fmt.Sprint("/test/a", i), Resources: model.Resources{CPUs: rapid.SampledFrom([]float64{0, 0.1, 0.5, 2}).Draw(t, "wants")}}
			spec.Ports = make([]model.Port, rapid.IntRange(0, 3).Draw(t, "ports"))
			if len(spec.Ports) > 0 && rapid.Bool().Draw(t, "fixed") {
				spec.Ports[0].HostPort = rapid.IntRange(31000, 31002).Draw(t, "port")
			}
			spec.Priority = rapid.IntRange(0, 2).Draw(t, "priority")
			pending = append(pending, queue(spec, rapid.IntRange(0, 12).Draw(t, "tasks"))...)
		}
		m := Match(pending, offers, now)
		tasks := map[string]*model.Task{}
		for _, p := range pending {
			tasks[p.Task.ID] = p.Task
		}
		free, ports := map[string]model.Resources{}, map[string]bool{}
		for _, o := range offers {
			free[o.Node.ID] = o.Node.Capacity
		}
		for _, p := range m.Placements {
			if !tasks[p.Task].Resources.Fits(free[p.Node]) {
				t.Fatalf("%s is over-committed", p.Node)
			}
			free[p.Node] = free[p.Node].Sub(tasks[p.Task].Resources)
			for _, port := range p.Ports {
				key := fmt.Sprint(p.Node, ":", port)
				if ports[key] {
					t.Fatalf("%s is given twice", key)
				}
				ports[key] = true
			}
		}
		waiting := 0
		for _, w := range m.Waiting {
			waiting += w.Tasks
		}
		if waiting+len(m.Placements) != len(pending) {
			t.Fatalf("%d placed and %d waiting of %d", len(m.Placements), waiting, len(pending))
		}
	})
}

func TestShare(t *testing.T) {
	total := model.Resources{CPUs: 9, Memory: 18}
	got := Share([]Client{
		{ID: "cpu", Role: "a", Used: model.Resources{CPUs: 6, Memory: 2}},
		{ID: "mem", Role: "b", Used: model.Resources{CPUs: 3, Memory: 12}, Weight: 4},
		{ID: "idle", Role: "a"},
	}, total)
	if got[0].ID != "mem" || got[1].ID != "idle" || got[2].ID != "cpu" {
		t.Errorf("%+v", got)
	}
}
