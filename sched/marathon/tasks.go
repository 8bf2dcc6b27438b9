package marathon

import (
	"net/http"
	"slices"

	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
)

// task is a task as GET answers it.
func (c *call) task(t *model.Task) map[string]any {
	host := c.host(t.Node)
	addr := t.Status.IP
	if addr == "" {
		if n := state.Nodes.Get(c.snap, t.Node); n != nil {
			addr = n.Addr
		}
	}
	rel := state.Releases.Get(c.snap, model.ReleaseKey(t.App, t.Release))
	id, service := t.App, []int{}
	if rel != nil {
		id = publicID(rel)
		for _, p := range rel.Spec.Ports {
			service = append(service, p.ServicePort)
		}
	}
	out := map[string]any{
		"id": t.ID, "appId": id, "host": host, "slaveId": t.Node, "state": t.Status.State, "ports": append([]int{}, t.Ports...),
		"servicePorts": service, "stagedAt": stamp(t.CreatedAt), "startedAt": stampOrNil(t.Status.StartedAt), "version": c.taskVersion(t),
		"ipAddresses": []any{map[string]string{"ipAddress": addr, "protocol": "IPv4"}}, "localVolumes": []any{},
	}
	if h := t.Status.Healthy; h != nil {
		result := map[string]any{"alive": *h, "consecutiveFailures": 0, "firstSuccess": stampOrNil(t.Status.ReadyAt), "instanceId": t.ID, "taskId": t.ID}
		if *h {
			result["lastSuccess"] = stamp(t.Status.At)
		} else {
			result["lastFailure"], result["lastFailureCause"], result["consecutiveFailures"] = stamp(t.Status.At), t.Status.Message, 1
		}
		out["healthCheckResults"] = []any{result}
	}
	return out
}

func (c *call) host(node string) string {
	if n := state.Nodes.Get(c.snap, node); n != nil {
		return n.Name
	}
	return node
}

func (c *call) taskVersion(t *model.Task) string {
	if rel := state.Releases.Get(c.snap, model.ReleaseKey(t.App, t.Release)); rel != nil {
		return stamp(rel.CreatedAt)
	}
	return stamp(t.CreatedAt)
}

// running lists the placed, live tasks of an app, or of all apps.
func (c *call) running(app string) []*model.Task {
	var out []*model.Task
	rows := state.Tasks.All(c.snap)
	if app != "" {
		rows = state.Tasks.By(c.snap, "app", app)
	}
	for t := range rows {
		if t.Framework == "" && t.Node != "" && t.Live() {
			out = append(out, t)
		}
	}
	return out
}

func (c *call) replyTasks(list []*model.Task) error {
	out := []any{}
	for _, t := range list {
		out = append(out, c.task(t))
	}
	return c.reply(http.StatusOK, map[string]any{"tasks": out})
}

// tasks serves /v2/tasks and /v2/tasks/delete.
func (c *call) tasks(rest string) error {
	if rest == "delete" {
		return c.deleteTasks()
	}
	if rest != "" {
		return notFound("URI not found: /v2/tasks/%s", rest)
	}
	return c.get(func() error {
		q := c.r.URL.Query()
		want := append(q["status"], q["status[]"]...)
		list := slices.DeleteFunc(c.running(""), func(t *model.Task) bool {
			status := "staging"
			if t.Status.State == model.TaskRunning {
				status = "running"
			}
			return len(want) > 0 && !slices.Contains(want, status)
		})
		return c.replyTasks(list)
	})
}

// appTasks serves /v2/apps/{id}/tasks.
func (c *call) appTasks(id string) error {
	if state.Apps.Get(c.snap, id) == nil {
		return noApp(c.shown(id))
	}
	list := c.running(id)
	switch c.r.Method {
	case http.MethodGet, http.MethodHead:
		return c.replyTasks(list)
	case http.MethodDelete:
		host := c.r.URL.Query().Get("host")
		list = slices.DeleteFunc(list, func(t *model.Task) bool { return host != "" && host != "*" && c.host(t.Node) != host })
		return c.kill(list, func() error { return c.replyTasks(list) })
	}
	return errMethod
}

// appTask serves /v2/apps/{id}/tasks/{taskId}.
func (c *call) appTask(id, task string) error {
	if state.Apps.Get(c.snap, id) == nil {
		return noApp(c.shown(id))
	}
	t := state.Tasks.Get(c.snap, task)
	if t == nil || t.App != id || !t.Live() {
		return notFound("Task '%s' does not exist", task)
	}
	if c.r.Method != http.MethodDelete {
		return errMethod
	}
	return c.kill([]*model.Task{t}, func() error { return c.reply(http.StatusOK, map[string]any{"task": c.task(t)}) })
}

// deleteTasks serves POST /v2/tasks/delete.
func (c *call) deleteTasks() error {
	if c.r.Method != http.MethodPost {
		return errMethod
	}
	doc, err := c.object()
	if err != nil {
		return err
	}
	ids, ok := doc["ids"].([]any)
	if !ok {
		return invalid("Invalid JSON", []detail{{"/ids", []string{"error.expected.jsarray"}}})
	}
	var list []*model.Task
	for _, v := range ids {
		id, _ := v.(string)
		t := state.Tasks.Get(c.snap, id)
		if t == nil || t.Framework != "" {
			return badRequest("Invalid task id '%v'", v)
		}
		list = append(list, t)
	}
	return c.kill(list, func() error { return c.replyTasks(list) })
}

// kill stops tasks; the loop replaces them unless scale makes the apps
// smaller by as many.
func (c *call) kill(list []*model.Task, done func() error) error {
	scale := c.flag("scale")
	if scale && c.flag("wipe") {
		return badRequest("You cannot use scale and wipe at the same time.")
	}
	stop := &command.StopTasks{Why: "it was killed through the Marathon API", At: c.now}
	fewer := map[string]int{}
	for _, t := range list {
		stop.Tasks = append(stop.Tasks, t.ID)
		fewer[t.App]++
	}
	commands := []command.Command{stop}
	deployment := ""
	for _, id := range sortedKeys(fewer) {
		a := state.Apps.Get(c.snap, id)
		if !scale || a == nil {
			continue
		}
		if a.Deployment != "" && !c.flag("force") {
			return locked(a.Deployment)
		}
		d := c.newDeployment("scale")
		deployment = d.ID
		commands = append(commands, &command.ScaleApp{App: id, Instances: max(a.Instances-fewer[id], 0), Deployment: d})
	}
	if err := c.proposeAll(commands); err != nil {
		return err
	}
	if deployment != "" {
		return c.replyDeployment(http.StatusOK, deployment)
	}
	return done()
}
