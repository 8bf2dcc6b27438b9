package marathon

import (
	"bytes"
	"encoding/json"
	"maps"

	"appliance/node/model"
	"appliance/raft/state"
)

// defaults are the fields that every answer has.
func defaults() map[string]any {
	return map[string]any{
		"cmd": nil, "args": nil, "user": nil, "env": map[string]any{}, "instances": defaultInstances, "cpus": defaultCPUs, "mem": defaultMem,
		"disk": 0, "gpus": 0, "executor": "", "constraints": []any{}, "uris": []any{}, "fetch": []any{}, "storeUrls": []any{},
		"ports": []any{}, "portDefinitions": []any{}, "requirePorts": false, "backoffSeconds": 1, "backoffFactor": 1.15,
		"maxLaunchDelaySeconds": 300, "container": nil, "healthChecks": []any{}, "readinessChecks": []any{}, "dependencies": []any{},
		"upgradeStrategy": map[string]any{"minimumHealthCapacity": 1, "maximumOverCapacity": 1}, "labels": map[string]any{},
		"acceptedResourceRoles": nil, "ipAddress": nil, "residency": nil, "secrets": map[string]any{}, "taskKillGracePeriodSeconds": nil,
	}
}

// definition is a release as a Marathon document: the one it came from, or
// one that says the same.
func definition(rel *model.Release) map[string]any {
	doc := map[string]any{}
	if len(rel.Spec.Marathon) > 0 {
		dec := json.NewDecoder(bytes.NewReader(rel.Spec.Marathon))
		dec.UseNumber()
		if dec.Decode(&doc) == nil {
			return doc
		}
	}
	raw, _ := json.Marshal(synthesize(&rel.Spec))
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	_ = dec.Decode(&doc) // it was just encoded
	return doc
}

// publicID is the id under which the app was put: without the default
// environment if the client did not write it.
func publicID(rel *model.Release) string {
	var doc struct {
		ID string `json:"id"`
	}
	if json.Unmarshal(rel.Spec.Marathon, &doc) == nil && doc.ID != "" {
		if doc.ID[0] != '/' {
			return "/" + doc.ID
		}
		return doc.ID
	}
	return rel.App
}

// render is an app as GET answers it.
func (c *call) render(a *model.App, rel *model.Release, tasks bool) map[string]any {
	out := defaults()
	maps.Copy(out, definedPorts(&rel.Spec))
	maps.Copy(out, definition(rel))
	out["id"] = publicID(rel)
	out["instances"] = a.Instances
	out["version"] = stamp(a.UpdatedAt)
	scaled := a.ScaledAt
	if scaled.IsZero() {
		scaled = rel.CreatedAt
	}
	out["versionInfo"] = map[string]string{"lastScalingAt": stamp(scaled), "lastConfigChangeAt": stamp(rel.CreatedAt)}
	deployments := []any{}
	if a.Deployment != "" {
		deployments = append(deployments, map[string]string{"id": a.Deployment})
	}
	out["deployments"] = deployments
	c.count(out, a, tasks)
	return out
}

// definedPorts are the ports of an app whose document may not name them:
// without any, Marathon gives one in host mode.
func definedPorts(s *model.AppSpec) map[string]any {
	services, definitions := []int{}, []any{}
	for _, p := range s.Ports {
		services = append(services, p.ServicePort)
		d := map[string]any{"port": p.ServicePort, "protocol": "tcp", "labels": map[string]string{}}
		if p.Name != "" {
			d["name"] = p.Name
		}
		definitions = append(definitions, d)
	}
	if len(s.Ports) == 0 || s.Network != model.NetworkHost {
		return map[string]any{"ports": services}
	}
	return map[string]any{"ports": services, "portDefinitions": definitions}
}

// count adds the numbers of tasks, the tasks and the last failure.
func (c *call) count(out map[string]any, a *model.App, tasks bool) {
	var staged, running, healthy, unhealthy int
	list := []any{}
	var failed *model.Task
	for t := range state.Tasks.By(c.snap, "app", a.ID) {
		switch st := t.Status; {
		case st.State == model.TaskFailed || st.State == model.TaskLost || st.State == model.TaskError:
			if failed == nil || t.ModifyIndex > failed.ModifyIndex {
				failed = t
			}
		case st.State == model.TaskStaging || st.State == model.TaskStarting:
			staged++
		case st.State == model.TaskRunning:
			running++
			if st.Healthy != nil && *st.Healthy {
				healthy++
			} else if st.Healthy != nil {
				unhealthy++
			}
		}
		if t.Live() && t.Node != "" {
			list = append(list, c.task(t))
		}
	}
	out["tasksStaged"], out["tasksRunning"], out["tasksHealthy"], out["tasksUnhealthy"] = staged, running, healthy, unhealthy
	if tasks {
		out["tasks"] = list
	}
	if failed != nil {
		out["lastTaskFailure"] = map[string]any{
			"appId": out["id"], "host": c.host(failed.Node), "message": failed.Status.Message, "state": failed.Status.State,
			"taskId": failed.ID, "timestamp": stamp(failed.Status.At), "version": c.taskVersion(failed), "slaveId": failed.Node,
		}
	}
}

// synthesize writes the document of an app that did not come through this
// dialect. What Marathon cannot express stays with the app when it is changed
// here, see keepOurs.
func synthesize(s *model.AppSpec) map[string]any {
	doc := map[string]any{
		"id": s.ID, "instances": s.Instances, "cpus": s.Resources.CPUs, "mem": s.Resources.Memory, "disk": s.Resources.Disk, "gpus": s.Resources.GPUs,
	}
	set := func(key string, v any, ok bool) {
		if ok {
			doc[key] = v
		}
	}
	set("cmd", s.Shell, s.Shell != "")
	set("args", s.Args, len(s.Args) > 0)
	set("user", s.User, s.User != "")
	set("env", s.Env, len(s.Env) > 0)
	set("labels", s.Labels, len(s.Labels) > 0)
	set("taskKillGracePeriodSeconds", s.KillGrace.D().Seconds(), s.KillGrace > 0)
	set("deploymentTimeoutSeconds", s.Upgrade.Deadline.D().Seconds(), s.Upgrade.Deadline > 0)
	if s.Upgrade.MinHealth != 0 || s.Upgrade.MaxOver != 0 {
		doc["upgradeStrategy"] = map[string]any{"minimumHealthCapacity": s.Upgrade.MinHealth, "maximumOverCapacity": s.Upgrade.MaxOver}
	}
	var constraints [][]string
	for _, k := range s.Constraints {
		row := []string{k.Attribute, k.Operator}
		if k.Value != "" {
			row = append(row, k.Value)
		}
		constraints = append(constraints, row)
	}
	set("constraints", constraints, len(constraints) > 0)
	set("healthChecks", synthesizeChecks(s.Checks), len(s.Checks) > 0)
	synthesizeContainer(doc, s)
	return doc
}

func synthesizeChecks(checks []model.Check) []any {
	var out []any
	for _, k := range checks {
		h := map[string]any{"portIndex": k.Port}
		for name, d := range map[string]model.Duration{"gracePeriodSeconds": k.Grace, "intervalSeconds": k.Interval, "timeoutSeconds": k.Timeout} {
			if d > 0 {
				h[name] = d.D().Seconds()
			}
		}
		if k.Failures > 0 {
			h["maxConsecutiveFailures"] = k.Failures
		}
		switch k.Type {
		case "command":
			h["protocol"], h["command"] = "COMMAND", map[string]any{"value": shellWords(k.Command)}
		case "tcp":
			h["protocol"] = "TCP"
		default:
			h["protocol"], h["path"] = map[string]string{"http": "HTTP", "https": "HTTPS"}[k.Type], k.Path
		}
		out = append(out, h)
	}
	return out
}

func shellWords(command []string) string {
	if len(command) == 3 && command[0] == "/bin/sh" && command[1] == "-c" {
		return command[2]
	}
	words := ""
	for _, w := range command {
		words += " " + quote(w)
	}
	return words[min(1, len(words)):]
}

// quote protects a word from the shell.
func quote(w string) string {
	return "'" + string(bytes.ReplaceAll([]byte(w), []byte("'"), []byte(`'\''`))) + "'"
}

func synthesizeContainer(doc map[string]any, s *model.AppSpec) {
	var ports, volumes []any
	for _, p := range s.Ports {
		m := map[string]any{"protocol": "tcp", "labels": map[string]string{}}
		if p.Protocol != "" {
			m["protocol"] = p.Protocol
		}
		if p.Name != "" {
			m["name"] = p.Name
		}
		if p.Labels != nil {
			m["labels"] = p.Labels
		}
		if s.Network == model.NetworkHost {
			m["port"] = max(p.HostPort, p.ServicePort)
		} else {
			m["containerPort"], m["hostPort"], m["servicePort"] = p.ContainerPort, p.HostPort, p.ServicePort
		}
		ports = append(ports, m)
	}
	for _, v := range s.Volumes {
		m := map[string]any{"containerPath": v.Path, "mode": "RW"}
		if v.ReadOnly {
			m["mode"] = "RO"
		}
		if v.Name != "" {
			m["external"] = map[string]any{"name": v.Name, "provider": "appliance"}
		} else {
			m["hostPath"] = v.HostPath
		}
		volumes = append(volumes, m)
	}
	container := map[string]any{"type": "DOCKER", "docker": map[string]any{
		"image": s.Image, "privileged": s.Privileged, "forcePullImage": s.ForcePull, "parameters": []any{},
	}}
	if volumes != nil {
		container["volumes"] = volumes
	}
	mode := "container/bridge"
	switch {
	case s.Network == model.NetworkHost:
		mode = "host"
		if doc["portDefinitions"] = ports; ports == nil {
			doc["portDefinitions"] = []any{}
		}
		for _, p := range s.Ports {
			if p.HostPort != 0 {
				doc["requirePorts"] = true
			}
		}
	case s.Network == model.NetworkNone:
		mode = "none"
	case ports != nil:
		container["portMappings"] = ports
	}
	doc["networks"] = []any{map[string]any{"mode": mode}}
	doc["container"] = container
}
