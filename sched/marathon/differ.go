package marathon

import (
	"appliance/node/model"
	"appliance/raft/state"
)

// differ remembers what one stream has told, and finds what is new.
type differ struct {
	tasks       map[string]*model.Task
	apps        map[string]*model.App
	public      map[string]string // ids as clients know them, also of apps that are gone
	deployments map[string]model.DeploymentState
}

func newDiffer(c *call) *differ {
	d := &differ{}
	d.diff(c)
	return d
}

// diff gives the events between the last view and c's, in the order in which
// Marathon sends them: requests, deployments that start, tasks, deployments
// that end.
func (d *differ) diff(c *call) []event {
	old := *d
	*d = differ{map[string]*model.Task{}, map[string]*model.App{}, map[string]string{}, map[string]model.DeploymentState{}}
	var out []event
	out = append(out, d.diffApps(c, &old)...)
	started, ended := d.diffDeployments(c, &old)
	out = append(out, started...)
	out = append(out, d.diffTasks(c, &old)...)
	return append(out, ended...)
}

func (d *differ) diffApps(c *call, old *differ) (out []event) {
	for a := range state.Apps.All(c.snap) {
		d.apps[a.ID] = a
		d.public[a.ID] = c.publicApp(a.ID)
		was := old.apps[a.ID]
		if was == nil || was.Release != a.Release || was.Instances != a.Instances {
			if rel := c.release(a); rel != nil {
				out = append(out, event{"api_post_event", map[string]any{
					"clientIp": "", "uri": "/v2/apps" + publicID(rel), "appDefinition": c.render(a, rel, false), "timestamp": stamp(a.UpdatedAt),
				}})
			}
		}
	}
	for _, id := range sortedKeys(old.apps) {
		if d.apps[id] == nil {
			out = append(out, event{"app_terminated_event", map[string]any{"appId": old.public[id]}})
		}
	}
	return out
}

func (d *differ) diffDeployments(c *call, old *differ) (started, ended []event) {
	for dep := range state.Deployments.All(c.snap) {
		d.deployments[dep.ID] = dep.State
		was := old.deployments[dep.ID]
		plan := map[string]any{"id": dep.ID, "version": stamp(dep.StartedAt), "steps": c.deployment(dep)["steps"], "original": nil, "target": nil}
		if was == "" {
			started = append(started,
				event{"group_change_success", map[string]any{"groupId": "/", "version": stamp(dep.StartedAt)}},
				event{"deployment_info", map[string]any{"plan": plan, "currentStep": map[string]any{"actions": c.deployment(dep)["currentActions"]}, "timestamp": stamp(dep.StartedAt)}})
		}
		if dep.State == was || dep.State == model.DeploymentRunning {
			continue
		}
		at := stamp(dep.EndedAt)
		if dep.State == model.DeploymentSucceeded {
			ended = append(ended,
				event{"deployment_step_success", map[string]any{"plan": plan, "currentStep": map[string]any{"actions": c.deployment(dep)["currentActions"]}, "timestamp": at}},
				event{"deployment_success", map[string]any{"id": dep.ID, "plan": plan, "timestamp": at}})
			continue
		}
		ended = append(ended, event{"deployment_failed", map[string]any{"id": dep.ID, "plan": plan, "reason": string(dep.State) + ": " + dep.Why, "timestamp": at}})
	}
	return started, ended
}

func (d *differ) diffTasks(c *call, old *differ) (out []event) {
	for t := range state.Tasks.All(c.snap) {
		if t.Framework != "" || t.Node == "" {
			continue
		}
		d.tasks[t.ID] = t
		was := old.tasks[t.ID]
		if was != nil && was.ModifyIndex == t.ModifyIndex {
			continue
		}
		out = append(out, c.taskEvents(t, was)...)
	}
	return out
}

func (c *call) taskEvents(t, was *model.Task) (out []event) {
	view := c.task(t)
	at := stamp(t.Status.At)
	if was == nil || was.Status.State != t.Status.State {
		out = append(out,
			event{"status_update_event", map[string]any{
				"slaveId": t.Node, "taskId": t.ID, "taskStatus": t.Status.State, "message": t.Status.Message, "appId": view["appId"],
				"host": view["host"], "ipAddresses": view["ipAddresses"], "ports": view["ports"], "version": view["version"], "timestamp": at,
			}},
			event{"instance_changed_event", map[string]any{
				"instanceId": t.ID, "condition": condition(t), "runSpecId": view["appId"], "agentId": t.Node, "host": view["host"],
				"runSpecVersion": view["version"], "timestamp": at,
			}})
	}
	healthy := func(t *model.Task) *bool {
		if t == nil {
			return nil
		}
		return t.Status.Healthy
	}
	if now, before := healthy(t), healthy(was); now != nil && (before == nil || *now != *before) {
		out = append(out,
			event{"health_status_changed_event", map[string]any{
				"appId": view["appId"], "taskId": t.ID, "instanceId": t.ID, "version": view["version"], "alive": *now, "timestamp": at,
			}},
			event{"instance_health_changed_event", map[string]any{
				"instanceId": t.ID, "runSpecId": view["appId"], "runSpecVersion": view["version"], "healthy": *now, "timestamp": at,
			}})
	}
	return out
}

// condition is Marathon's word for a state of an instance.
func condition(t *model.Task) string {
	switch t.Status.State {
	case model.TaskStaging:
		return "Staging"
	case model.TaskStarting:
		return "Starting"
	case model.TaskRunning:
		return "Running"
	case model.TaskKilling:
		return "Killing"
	case model.TaskFinished:
		return "Finished"
	case model.TaskKilled:
		return "Killed"
	case model.TaskError:
		return "Error"
	case model.TaskLost:
		return "Gone"
	}
	return "Failed"
}
