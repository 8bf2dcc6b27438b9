package mesos

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"appliance/node/model"
	"appliance/raft/state"
	"appliance/sched"
)

// page serves what tools read with GET.
func (s *Server) page(w http.ResponseWriter, r *http.Request, path string) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return refuse(http.StatusMethodNotAllowed, "Expecting one of { 'GET' }, but received '%s'", r.Method)
	}
	snap := s.Store.Snapshot()
	var body any
	switch strings.TrimSuffix(path, ".json") {
	case "/health":
		w.WriteHeader(http.StatusOK)
		return nil
	case "/version":
		body = map[string]any{"version": Version, "build_date": "", "build_time": 0.0, "build_user": ""}
	case "/state", "/state-summary":
		body = s.state(snap)
	case "/slaves":
		body = map[string]any{"slaves": s.slaves(snap), "recovered_slaves": []any{}}
	case "/frameworks":
		active, completed := s.frameworks(snap)
		body = map[string]any{"frameworks": active, "completed_frameworks": completed, "unregistered_frameworks": []any{}}
	case "/tasks":
		body = map[string]any{"tasks": s.taskPage(snap, r)}
	case "/metrics/snapshot":
		body = s.metrics(snap)
	default:
		return refuse(http.StatusNotFound, "%s is not served", path)
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(body) // an error means that the client is gone
	return nil
}

// defaultLimit is how many tasks /tasks gives unless asked.
const defaultLimit = 100

func (s *Server) taskPage(snap *state.Snapshot, r *http.Request) []any {
	q := r.URL.Query()
	number := func(name string, or int) int {
		if n, err := strconv.Atoi(q.Get(name)); err == nil && n >= 0 {
			return n
		}
		return or
	}
	skip, limit := number("offset", 0), number("limit", defaultLimit)
	out := []any{}
	for t := range state.Tasks.All(snap) {
		if q.Get("framework_id") != "" && frameworkOf(t) != q.Get("framework_id") || q.Get("task_id") != "" && foreignID(t) != q.Get("task_id") {
			continue
		}
		if skip--; skip >= 0 {
			continue
		}
		if len(out) == limit {
			break
		}
		out = append(out, s.task(snap, t))
	}
	return out
}

// state is the document that mesos-dns and many others read.
func (s *Server) state(snap *state.Snapshot) map[string]any {
	active, completed := s.frameworks(snap)
	ready, other := 0, 0
	for n := range state.Nodes.All(snap) {
		switch {
		case n.Role != model.RoleAgent:
		case n.Status == model.NodeReady:
			ready++
		default:
			other++
		}
	}
	out := map[string]any{
		"version": Version, "git_sha": "", "git_branch": "", "git_tag": "", "build_date": "", "build_time": 0.0, "build_user": "",
		"start_time": unix(s.started), "elected_time": unix(s.started), "id": s.Self, "pid": "master@" + s.Addr, "hostname": s.masterInfo().Hostname,
		"capabilities": []string{}, "activated_slaves": ready, "deactivated_slaves": 0, "unreachable_slaves": other, "flags": map[string]any{},
		"slaves": s.slaves(snap), "recovered_slaves": []any{}, "frameworks": active, "completed_frameworks": completed,
		"orphan_tasks": []any{}, "unregistered_frameworks": []any{},
	}
	if l := s.leader(); l != "" {
		out["leader"] = "master@" + l
	}
	for c := range state.Clusters.All(snap) {
		out["cluster"] = c.Name
	}
	return out
}

// amountsJSON writes resources as the pages do: ports are a string.
func amountsJSON(r model.Resources, ports []int) map[string]any {
	out := map[string]any{"cpus": r.CPUs, "mem": r.Memory, "disk": r.Disk, "gpus": r.GPUs}
	if len(ports) > 0 {
		out["ports"] = portText(ports)
	}
	return out
}

func portText(ports []int) string {
	var parts []string
	for _, r := range ranges(append([]int{}, ports...)) {
		parts = append(parts, strconv.FormatUint(r.Begin, 10)+"-"+strconv.FormatUint(r.End, 10))
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

func (s *Server) slaves(snap *state.Snapshot) []any {
	out := []any{}
	for _, o := range sched.Allocate(snap, s.started) {
		n := o.Node
		used := n.Capacity.Sub(o.Free)
		r := sched.PortRange(n)
		total := amountsJSON(n.Capacity, nil)
		total["ports"] = "[" + strconv.Itoa(r[0]) + "-" + strconv.Itoa(r[1]) + "]"
		attrs := map[string]any{}
		for k, v := range n.Attributes {
			attrs[k] = v
		}
		var ports []int
		for p := range o.Ports {
			ports = append(ports, p)
		}
		out = append(out, map[string]any{
			"id": n.ID, "hostname": n.Name, "port": agentPort, "attributes": attrs, "pid": agentPID(n), "registered_time": unix(n.JoinedAt),
			"reregistered_time": unix(n.StartedAt), "resources": total, "unreserved_resources": total, "reserved_resources": map[string]any{},
			"used_resources": amountsJSON(used, ports), "offered_resources": amountsJSON(s.offered(n.ID), nil),
			"active": n.Status == model.NodeReady, "deactivated": n.Drain, "version": Version, "capabilities": []string{},
		})
	}
	return out
}

func agentPID(n *model.Node) string { return "slave(1)@" + n.Addr + ":" + strconv.Itoa(agentPort) }

func (s *Server) offered(node string) (r model.Resources) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ss := range s.sessions {
		for _, o := range ss.offers {
			if o.node == node {
				r = r.Add(o.resources)
			}
		}
	}
	return r
}

func (s *Server) metrics(snap *state.Snapshot) map[string]float64 {
	m := map[string]float64{"master/elected": 0, "master/uptime_secs": sinceSeconds(s.started)}
	if s.leader() == s.Addr {
		m["master/elected"] = 1
	}
	for _, k := range []string{"staging", "starting", "running", "killing", "finished", "failed", "killed", "error", "lost"} {
		m["master/tasks_"+k] = 0
	}
	for t := range state.Tasks.All(snap) {
		m["master/tasks_"+strings.ToLower(strings.TrimPrefix(string(t.Status.State), "TASK_"))]++
	}
	for _, k := range []string{"slaves_active", "slaves_inactive", "slaves_connected", "slaves_disconnected", "frameworks_active", "frameworks_connected", "frameworks_disconnected", "outstanding_offers"} {
		m["master/"+k] = 0
	}
	var total, used model.Resources
	for _, o := range sched.Allocate(snap, s.started) {
		if o.Node.Status == model.NodeReady {
			m["master/slaves_active"]++
			m["master/slaves_connected"]++
			total = total.Add(o.Node.Capacity)
			used = used.Add(o.Node.Capacity.Sub(o.Free))
		} else {
			m["master/slaves_inactive"]++
			m["master/slaves_disconnected"]++
		}
	}
	gauge := func(name string, total, used float64) {
		m["master/"+name+"_total"], m["master/"+name+"_used"], m["master/"+name+"_percent"] = total, used, 0
		if total > 0 {
			m["master/"+name+"_percent"] = used / total
		}
	}
	gauge("cpus", total.CPUs, used.CPUs)
	gauge("mem", total.Memory, used.Memory)
	gauge("disk", total.Disk, used.Disk)
	gauge("gpus", total.GPUs, used.GPUs)
	for f := range state.Frameworks.All(snap) {
		switch {
		case f.Removed:
		case f.Connected:
			m["master/frameworks_connected"]++
			m["master/frameworks_active"]++
		default:
			m["master/frameworks_disconnected"]++
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ss := range s.sessions {
		m["master/outstanding_offers"] += float64(len(ss.offers))
	}
	return m
}
