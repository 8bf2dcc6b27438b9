package mesos

import (
	"time"

	"appliance/node/model"
	"appliance/raft/state"
)

// The app layer appears as a framework of this name, so that tools which
// read Mesos see its tasks as they saw Marathon's.
const (
	builtinID   = "appliance-apps"
	builtinName = "marathon"
)

func sinceSeconds(t time.Time) float64 { return time.Since(t).Seconds() }

// frameworkOf is the id of the framework that a task belongs to.
func frameworkOf(t *model.Task) string {
	if t.Framework == "" {
		return builtinID
	}
	return t.Framework
}

// frameworks lists the registered ones, the app layer first, and those that
// are gone.
func (s *Server) frameworks(snap *state.Snapshot) (active, completed []any) {
	tasks := map[string][]*model.Task{}
	for t := range state.Tasks.All(snap) {
		id := frameworkOf(t)
		tasks[id] = append(tasks[id], t)
	}
	builtin := &model.Framework{ID: builtinID, Name: builtinName, User: "root", Roles: []string{"*"}, Connected: true, Checkpoint: true, RegisteredAt: s.started}
	active, completed = []any{s.row(snap, builtin, tasks[builtinID])}, []any{}
	for f := range state.Frameworks.All(snap) {
		if f.Removed {
			completed = append(completed, s.row(snap, f, tasks[f.ID]))
		} else {
			active = append(active, s.row(snap, f, tasks[f.ID]))
		}
	}
	return active, completed
}

func (s *Server) row(snap *state.Snapshot, f *model.Framework, tasks []*model.Task) map[string]any {
	live, ended := []any{}, []any{}
	var used model.Resources
	var ports []int
	for _, t := range tasks {
		if t.Live() && t.Node != "" {
			live = append(live, s.task(snap, t))
			used = used.Add(t.Resources)
			ports = append(ports, t.Ports...)
		} else if !t.Live() {
			ended = append(ended, s.task(snap, t))
		}
	}
	capabilities := append([]string{}, f.Capabilities...)
	role := "*"
	if len(f.Roles) > 0 {
		role = f.Roles[0]
	}
	return map[string]any{
		"id": f.ID, "name": f.Name, "pid": "scheduler@" + f.Hostname, "hostname": f.Hostname, "webui_url": f.WebUI, "user": f.User,
		"active": f.Connected, "connected": f.Connected, "recovered": false, "failover_timeout": f.FailoverTimeout.D().Seconds(),
		"checkpoint": f.Checkpoint, "registered_time": unix(f.RegisteredAt), "unregistered_time": unix(f.DisconnectedAt), "principal": f.Principal,
		"role": role, "roles": f.Roles, "capabilities": capabilities, "used_resources": amountsJSON(used, ports), "resources": amountsJSON(used, ports),
		"offered_resources": amountsJSON(model.Resources{}, nil), "tasks": live, "completed_tasks": ended, "unreachable_tasks": []any{},
		"offers": []any{}, "executors": []any{}, "labels": []any{},
	}
}

func (s *Server) task(snap *state.Snapshot, t *model.Task) map[string]any {
	name := t.App
	labels := map[string]string(nil)
	if t.Foreign != nil {
		name, labels = t.Foreign.Name, t.Foreign.Labels
	} else if rel := state.Releases.Get(snap, model.ReleaseKey(t.App, t.Release)); rel != nil {
		labels = rel.Spec.Labels
		name = discoveryName(t.App)
	}
	list := []any{}
	for _, k := range sortedKeys(labels) {
		list = append(list, map[string]string{"key": k, "value": labels[k]})
	}
	addr := t.Status.IP
	if n := state.Nodes.Get(snap, t.Node); addr == "" && n != nil {
		addr = n.Addr
	}
	st := map[string]any{"state": t.Status.State, "timestamp": unix(t.Status.At), "container_status": map[string]any{
		"network_infos": []any{map[string]any{"ip_addresses": []any{map[string]string{"protocol": "IPv4", "ip_address": addr}}}},
	}}
	if t.Status.Healthy != nil {
		st["healthy"] = *t.Status.Healthy
	}
	discovery := []any{}
	for _, p := range t.Ports {
		discovery = append(discovery, map[string]any{"number": p, "protocol": "tcp"})
	}
	return map[string]any{
		"id": foreignID(t), "name": name, "framework_id": frameworkOf(t), "executor_id": "", "slave_id": t.Node, "state": t.Status.State,
		"resources": amountsJSON(t.Resources, t.Ports), "role": "*", "statuses": []any{st}, "labels": list,
		"discovery": map[string]any{"visibility": "FRAMEWORK", "name": name, "ports": map[string]any{"ports": discovery}},
	}
}

// discoveryName writes an app's id as Marathon names its tasks: the parts
// reversed, with dots.
func discoveryName(id string) string {
	out := ""
	for part := range splitID(id) {
		if out != "" {
			part += "." + out
		}
		out = part
	}
	return out
}
