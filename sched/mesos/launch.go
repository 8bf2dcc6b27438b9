package mesos

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"appliance/node/model"
	"appliance/raft/command"
	"appliance/sched/mesos/wire"
)

// TaskID is the id in the cluster of a framework's task: unique over all
// frameworks, and safe as a file and host name whatever the framework chose.
func TaskID(framework, task string) string {
	sum := sha256.Sum256([]byte(framework + "\x00" + task))
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, task)
	return "task-" + name[:min(len(name), 40)] + "." + hex.EncodeToString(sum[:6])
}

// accept launches tasks on what the offers hold, and declines the rest.
func (s *Server) accept(ctx context.Context, ss *session, a *wire.Accept) error {
	offers, fault := s.take(ss, a.OfferIDs, a.Filters)
	var launches []launch
	for i := range a.Operations {
		launches = append(launches, flatten(&a.Operations[i])...)
	}
	if fault != "" {
		s.reject(ss, launches, lost(ss), wire.ReasonInvalidOffers, "Task launched with invalid offers: "+fault)
		return nil
	}
	free, ports := model.Resources{}, map[int]bool{}
	for _, o := range offers {
		free = free.Add(o.resources)
		for _, p := range o.ports {
			ports[p] = true
		}
	}
	var good []launch
	c := &command.LaunchTasks{}
	for _, l := range launches {
		t, fault := toTask(ss.framework, offers[0].node, l)
		if fault == "" && !t.Resources.Fits(free) {
			fault = "Task uses more resources than available on the offers"
		}
		for _, p := range t.Ports {
			if fault == "" && !ports[p] {
				fault = fmt.Sprintf("Task uses port %d, which was not offered", p)
			}
		}
		if fault != "" {
			s.reject(ss, []launch{l}, "TASK_ERROR", l.invalid(), fault)
			continue
		}
		free = free.Sub(t.Resources)
		for _, p := range t.Ports {
			delete(ports, p)
		}
		good = append(good, l)
		c.Tasks = append(c.Tasks, t)
	}
	return s.launch(ctx, ss, c, good)
}

// lost is the state of a task that was not started through no fault of its
// own.
func lost(ss *session) string {
	if ss.has(5) { // PARTITION_AWARE
		return "TASK_DROPPED"
	}
	return "TASK_LOST"
}

// launch commits tasks; those that the state refuses are told at once.
func (s *Server) launch(ctx context.Context, ss *session, c *command.LaunchTasks, launches []launch) error {
	if len(c.Tasks) == 0 {
		return nil
	}
	res, err := command.Do(ctx, s.Proposer, c)
	if err != nil {
		s.reject(ss, launches, lost(ss), wire.ReasonInvalidOffers, "The launch could not be committed: "+err.Error())
		return nil
	}
	var placed command.Placed
	if err := res.Decode(&placed); err != nil {
		return err
	}
	for i, l := range launches {
		why, refused := placed.Refused[c.Tasks[i].ID]
		switch {
		case !refused:
		case strings.HasPrefix(why, "Task has duplicate ID"):
			s.reject(ss, []launch{l}, "TASK_ERROR", l.invalid(), "Task has duplicate ID: "+l.info.TaskID.Value)
		default:
			s.reject(ss, []launch{l}, lost(ss), wire.ReasonInvalidOffers, "Task launched with invalid offers: "+why)
		}
	}
	s.wake()
	return nil
}

// reject tells that tasks were not started. Such an update has no UUID: there
// is nothing to acknowledge.
func (s *Server) reject(ss *session, launches []launch, state string, reason wire.Reason, message string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	source := wire.SourceMaster
	for _, l := range launches {
		if l.info.TaskID == nil {
			continue
		}
		ss.send(&wire.Event{Type: wire.EventUpdate, Update: &wire.Update{Status: &wire.TaskStatus{
			TaskID: l.info.TaskID, AgentID: l.info.AgentID, State: wire.TaskStateOf(state), Source: &source, Reason: &reason,
			Message: message, Timestamp: unix(time.Now()),
		}}})
	}
}

// launch is one task to start, with the executor of its group if it has one.
type launch struct {
	info  *wire.TaskInfo
	group *wire.ExecutorInfo
	// op is the id of an operation; a launch must not have one.
	op *wire.ID
}

func (l launch) invalid() wire.Reason {
	if l.group != nil {
		return wire.ReasonGroupInvalid
	}
	return wire.ReasonTaskInvalid
}

// flatten lists the tasks of an operation. Operations on reservations and
// volumes have no effect: there are none.
func flatten(op *wire.Operation) []launch {
	var out []launch
	switch {
	case op.Type == wire.OpLaunch && op.Launch != nil:
		for i := range op.Launch.Tasks {
			out = append(out, launch{info: &op.Launch.Tasks[i], op: op.ID})
		}
	case op.Type == wire.OpLaunchGroup && op.LaunchGroup != nil && op.LaunchGroup.TaskGroup != nil:
		group := op.LaunchGroup.Executor
		if group == nil {
			group = &wire.ExecutorInfo{}
		}
		for i := range op.LaunchGroup.TaskGroup.Tasks {
			out = append(out, launch{info: &op.LaunchGroup.TaskGroup.Tasks[i], group: group, op: op.ID})
		}
	}
	return out
}

// toTask turns a TaskInfo into a task of the cluster, or says what is wrong.
func toTask(f *model.Framework, node string, l launch) (t model.Task, fault string) {
	info := l.info
	switch {
	case info.TaskID == nil || info.TaskID.Value == "" || strings.ContainsAny(info.TaskID.Value, "/\\\x00"):
		return t, "Task has an invalid ID"
	case info.AgentID == nil || info.AgentID.Value != node:
		return t, "Task uses an agent that differs from the agent of the offers"
	case l.op != nil:
		return t, "Operation id is not supported for LAUNCH"
	case l.group == nil && (info.Executor == nil) == (info.Command == nil):
		return t, "Task should have at least one (but not both) of CommandInfo or ExecutorInfo present"
	}
	lists := [][]wire.Resource{info.Resources}
	if info.Executor != nil {
		lists = append(lists, info.Executor.Resources)
	}
	amount, ports, fault := amounts(lists...)
	if fault != "" {
		return t, fault
	}
	if amount == (model.Resources{}) && len(ports) == 0 {
		return t, "Task uses no resources"
	}
	foreign, fault := toForeign(l)
	if fault != "" {
		return t, fault
	}
	now := time.Now()
	t = model.Task{
		ID: TaskID(f.ID, info.TaskID.Value), Framework: f.ID, Node: node, Resources: amount, CreatedAt: now, PlacedAt: now, Foreign: foreign,
	}
	t.Ports, foreign.Ports = pairPorts(foreign.Ports, ports)
	if info.HealthCheck != nil {
		foreign.Check = check(foreign, info.HealthCheck)
	}
	return t, ""
}

// pairPorts orders the host ports as the container's ports are, the others
// behind them under their own numbers.
func pairPorts(mapped []model.Port, ports []int) ([]int, []model.Port) {
	var hosts []int
	for _, m := range mapped {
		hosts = append(hosts, m.HostPort)
	}
	for _, p := range ports {
		if !slices.Contains(hosts, p) {
			hosts = append(hosts, p)
			mapped = append(mapped, model.Port{HostPort: p, ContainerPort: p})
		}
	}
	return hosts, mapped
}
