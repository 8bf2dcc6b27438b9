package discovery

import (
	"fmt"
	"strconv"
	"strings"

	"appliance/node/model"
)

// source is what the endpoints of a task are made of; the part that app tasks
// and foreign tasks have in common.
type source struct {
	name    string // default service name
	forced  []string
	env     map[string]string
	labels  map[string]string
	ports   []model.Port
	network string
	checked bool // has health checks
}

func sourceOf(t *model.Task, rel *model.Release) (source, bool) {
	if f := t.Foreign; f != nil {
		return source{
			name: foreignName(f.Name), env: f.Env, labels: f.Labels, ports: f.Ports,
			network: f.Network, checked: f.Check != nil,
		}, true
	}
	if rel == nil {
		return source{}, false
	}
	env, name := model.SplitAppID(t.App)
	return source{
		name: model.ServiceName(t.App), forced: []string{env, name},
		env: rel.Spec.Env, labels: rel.Spec.Labels, ports: rel.Spec.Ports,
		network: rel.Spec.Network, checked: len(rel.Spec.Checks) > 0,
	}, true
}

// foreignName makes the name of a foreign task fit into DNS.
func foreignName(name string) string {
	mapped := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-', r == '_':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, name)
	return strings.Trim(mapped, "-")
}

// taskEndpoints derives the endpoints of one task: node address and host port,
// in bridge and in host mode alike. Node health is not looked at here.
func taskEndpoints(t *model.Task, rel *model.Release, n *model.Node) []*Endpoint {
	if r := t.Status.State.Rank(); r < model.TaskRunning.Rank() || t.Status.State.Terminal() {
		return nil
	}
	src, ok := sourceOf(t, rel)
	if !ok || src.network == model.NetworkNone {
		return nil
	}
	ports := src.ports
	if len(ports) == 0 {
		ports = make([]model.Port, len(t.Ports))
	}
	var out []*Endpoint
	for i, p := range ports {
		if e := portEndpoint(t, n, src, ports, i, p); e != nil {
			out = append(out, e)
		}
	}
	return out
}

func portEndpoint(t *model.Task, n *model.Node, src source, ports []model.Port, i int, p model.Port) *Endpoint {
	host := p.HostPort
	if i < len(t.Ports) {
		host = t.Ports[i]
	}
	if host == 0 {
		return nil
	}
	number := p.ContainerPort
	if number == 0 {
		number = host
	}
	s := settingsFor(src.env, src.labels, p, number)
	if s.ignored() {
		return nil
	}
	suffix, several := portSuffix(p, i), len(ports) > 1
	e := &Endpoint{
		Service: s.name(src.name, suffix, several), Node: n.Name, NodeID: n.ID, Addr: n.Addr, Port: host,
		Protocol: "tcp", PortIndex: i, PortName: p.Name, Weights: [2]int{1, 1},
		Task: t.ID, App: t.App, Env: t.Env, Release: t.Release,
		CreateIndex: t.CreateIndex, ModifyIndex: t.ModifyIndex,
	}
	if e.Service == "" {
		return nil
	}
	forced := src.forced
	id := n.Name + ":" + t.ID + ":" + strconv.Itoa(number)
	if strings.EqualFold(p.Protocol, "udp") {
		e.Protocol, id, forced = "udp", id+":udp", append(forced[:len(forced):len(forced)], "udp")
	}
	e.ID = s.id(id, suffix, several)
	e.Tags = s.tags(forced...)
	e.Meta = s.meta()
	describe(e, t)
	e.Status, e.Output, e.Draining = taskHealth(t, src.checked)
	e.Checks = []*Check{{
		Node: e.Node, ID: "service:" + e.ID, Name: "Service '" + e.Service + "' check", Status: e.Status, Output: e.Output,
		ServiceID: e.ID, ServiceName: e.Service, ServiceTags: e.Tags, Type: "task",
		CreateIndex: t.CreateIndex, ModifyIndex: t.ModifyIndex,
	}}
	return e
}

// portSuffix tells the services of an app with several ports apart. It is the
// same for every instance, so never the chosen host port.
func portSuffix(p model.Port, i int) string {
	switch {
	case p.ContainerPort != 0:
		return strconv.Itoa(p.ContainerPort)
	case p.Name != "":
		return p.Name
	case p.HostPort != 0:
		return strconv.Itoa(p.HostPort)
	}
	return strconv.Itoa(i)
}

// describe adds what users of the Consul dialect cannot see otherwise; a
// setting of the same name wins.
func describe(e *Endpoint, t *model.Task) {
	add := func(k, v string) {
		if _, taken := e.Meta[k]; !taken && v != "" {
			e.Meta[k] = v
		}
	}
	add("task", t.ID)
	add("app", t.App)
	add("env", t.Env)
	if t.Release != 0 {
		add("release", strconv.FormatUint(t.Release, 10))
	}
}

func taskHealth(t *model.Task, checked bool) (Status, string, bool) {
	switch {
	case t.Stop || t.Status.State == model.TaskKilling:
		return Critical, "draining: " + orElse(t.StopWhy, "the task is being stopped"), true
	case t.Ready(checked):
		return Passing, orElse(t.Status.Message, "running"), false
	case t.Status.Healthy == nil:
		return Critical, "no health check has answered yet", false
	}
	return Critical, fmt.Sprintf("unhealthy: %s", orElse(t.Status.Message, "the health check fails")), false
}

func orElse(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}
