package mesos

import (
	"iter"
	"net/http"
	"strings"
	"time"

	"appliance/node/model"
	"appliance/raft/state"
	"appliance/sched"
	"appliance/sched/mesos/wire"
)

func splitID(id string) iter.Seq[string] { return strings.SplitSeq(strings.Trim(id, "/"), "/") }

// operator serves POST /api/v1.
func (s *Server) operator(w http.ResponseWriter, r *http.Request) error {
	var call wire.OperatorRequest
	if err := read(r, &call); err != nil {
		return err
	}
	c, err := answerCodec(r)
	if err != nil {
		return err
	}
	snap := s.Store.Snapshot()
	var a wire.OperatorAnswer
	switch call.Type {
	case wire.GetHealth:
		a = wire.OperatorAnswer{Type: 1, Health: &wire.Health{Healthy: true}}
	case wire.GetVersion:
		a = wire.OperatorAnswer{Type: 3, Version: &wire.VersionAnswer{Info: &wire.VersionInfo{Version: Version}}}
	case wire.GetState:
		a = wire.OperatorAnswer{Type: 8, State: &wire.StateAnswer{Tasks: s.taskList(snap), Frameworks: s.frameworkList(snap), Agents: s.agentList(snap)}}
	case wire.GetAgents:
		a = wire.OperatorAnswer{Type: 9, Agents: s.agentList(snap)}
	case wire.GetFrameworks:
		a = wire.OperatorAnswer{Type: 10, Frameworks: s.frameworkList(snap)}
	case wire.GetTasks:
		a = wire.OperatorAnswer{Type: 12, Tasks: s.taskList(snap)}
	case wire.GetMaster:
		a = wire.OperatorAnswer{Type: 15, Master: &wire.MasterAnswer{Info: s.masterInfo()}}
	case 0:
		return refuse(http.StatusBadRequest, "Failed to validate master::Call: Expecting 'type' to be present")
	default:
		return refuse(http.StatusNotImplemented, "Call %s is not supported", wire.Name(call.Type))
	}
	w.Header().Set("Content-Type", c.name)
	_, _ = w.Write(c.marshal(&a)) // an error means that the client is gone
	return nil
}

func nanos(t time.Time) *wire.Nanoseconds {
	if t.IsZero() {
		return nil
	}
	return &wire.Nanoseconds{Nanoseconds: t.UnixNano()}
}

func (s *Server) agentList(snap *state.Snapshot) *wire.AgentList {
	out := &wire.AgentList{}
	for _, o := range sched.Allocate(snap, s.started) {
		n := o.Node
		r := sched.PortRange(n)
		total := append(resources(n.Capacity, nil, true, ""), wire.Resource{Name: "ports", Type: wire.Range,
			Ranges: &wire.Ranges{Range: []wire.PortRange{{Begin: uint64(r[0]), End: uint64(r[1])}}}})
		out.Agents = append(out.Agents, wire.AgentRow{
			Info:   &wire.AgentInfo{Hostname: n.Name, ID: &wire.ID{Value: n.ID}, Port: agentPort, Resources: total, Attributes: attributes(n)},
			Active: n.Status == model.NodeReady, Deactivated: n.Drain, Version: Version, PID: agentPID(n), Registered: nanos(n.JoinedAt),
			Total: total, Allocated: resources(n.Capacity.Sub(o.Free), nil, true, ""),
		})
	}
	return out
}

func (s *Server) frameworkList(snap *state.Snapshot) *wire.FrameworkList {
	out := &wire.FrameworkList{}
	for f := range state.Frameworks.All(snap) {
		row := wire.FrameworkRow{Info: &wire.FrameworkInfo{}, Active: f.Connected, Connected: f.Connected, Registered: nanos(f.RegisteredAt)}
		if wire.UnmarshalProto(f.Info, row.Info) != nil {
			row.Info = &wire.FrameworkInfo{User: f.User, Name: f.Name, ID: &wire.ID{Value: f.ID}}
		}
		if f.Removed {
			row.Unregistered = nanos(f.DisconnectedAt)
			out.Completed = append(out.Completed, row)
		} else {
			out.Frameworks = append(out.Frameworks, row)
		}
	}
	return out
}

func (s *Server) taskList(snap *state.Snapshot) *wire.TaskList {
	out := &wire.TaskList{}
	for t := range state.Tasks.All(snap) {
		if t.Node == "" {
			continue
		}
		name := discoveryName(t.App)
		if t.Foreign != nil {
			name = t.Foreign.Name
		}
		row := wire.TaskRow{
			Name: name, TaskID: &wire.ID{Value: foreignID(t)}, FrameworkID: &wire.ID{Value: frameworkOf(t)}, AgentID: &wire.ID{Value: t.Node},
			State: wire.TaskStateOf(string(t.Status.State)), Resources: resources(t.Resources, append([]int{}, t.Ports...), true, ""),
			Statuses: []wire.TaskStatus{*status(t)},
		}
		if t.Live() {
			out.Tasks = append(out.Tasks, row)
		} else {
			out.Completed = append(out.Completed, row)
		}
	}
	return out
}
