package mesos

import (
	"time"

	"appliance/node/model"
	"appliance/sched/mesos/wire"
)

// toForeign describes what the agent has to run. There is no executor API
// here: an executor's command is run as the task, and its end is the task's
// end.
func toForeign(l launch) (*model.ForeignTask, string) {
	info := l.info
	cmd, container := info.Command, info.Container
	f := &model.ForeignTask{TaskID: info.TaskID.Value, Name: info.Name, Info: wire.MarshalProto(info), Shell: true}
	executor := info.Executor
	if l.group != nil {
		executor = l.group
	}
	if executor != nil && executor.ExecutorID != nil {
		f.Executor = executor.ExecutorID.Value
	}
	if cmd == nil && executor != nil {
		cmd = executor.Command
		if container == nil {
			container = executor.Container
		}
	}
	if cmd != nil {
		setCommand(f, cmd)
	}
	if fault := image(f, container); fault != "" {
		return nil, fault
	}
	if f.Image == "" && f.Value == "" {
		return nil, "Task has no command to run"
	}
	if info.Labels != nil {
		f.Labels = map[string]string{}
		for _, k := range info.Labels.Labels {
			f.Labels[k.Key] = k.Value
		}
	}
	if info.KillPolicy != nil && info.KillPolicy.GracePeriod != nil {
		f.KillWait = model.Duration(max(info.KillPolicy.GracePeriod.Nanoseconds, 0))
	}
	return f, ""
}

func setCommand(f *model.ForeignTask, c *wire.CommandInfo) {
	f.Value, f.Args, f.User = c.Value, c.Arguments, c.User
	f.Shell = c.Shell == nil || *c.Shell
	if c.Environment != nil {
		f.Env = map[string]string{}
		for _, v := range c.Environment.Variables {
			f.Env[v.Name] = v.Value
		}
	}
	for _, u := range c.URIs {
		f.URIs = append(f.URIs, model.URI{Value: u.Value, Executable: u.Executable, File: u.OutputFile,
			Extract: !u.Executable && (u.Extract == nil || *u.Extract)})
	}
}

// image reads the container: which image, which network, which ports.
func image(f *model.ForeignTask, c *wire.ContainerInfo) string {
	switch {
	case c == nil:
		return ""
	case c.Docker != nil:
		f.Image = c.Docker.Image
	case c.Mesos != nil && c.Mesos.Image != nil && c.Mesos.Image.Docker != nil:
		f.Image = c.Mesos.Image.Docker.Name
		f.Network = model.NetworkHost
		return ""
	default:
		return ""
	}
	switch wire.Name(c.Docker.Network) {
	case "BRIDGE":
		f.Network = model.NetworkBridge
	case "NONE":
		f.Network = model.NetworkNone
	case "USER":
		return "Docker network USER is not supported"
	default:
		f.Network = model.NetworkHost
	}
	for _, p := range c.Docker.PortMappings {
		f.Ports = append(f.Ports, model.Port{HostPort: int(p.HostPort), ContainerPort: int(p.ContainerPort), Protocol: p.Protocol})
	}
	for _, p := range c.Docker.Parameters {
		if p.Key == "entrypoint" {
			f.Shell, f.Value = false, p.Value
		}
	}
	if f.Value == "" {
		f.Shell = false
	}
	return ""
}

// check converts a health check; ports are numbers here and indexes there.
func check(f *model.ForeignTask, h *wire.HealthCheck) *model.Check {
	or := func(v *float64, or time.Duration) model.Duration {
		if v == nil {
			return model.Duration(or)
		}
		return seconds(*v)
	}
	c := &model.Check{Interval: or(h.Interval, 10*time.Second), Timeout: or(h.Timeout, 20*time.Second), Grace: or(h.GracePeriod, 10*time.Second), Failures: 3}
	if h.Failures != nil {
		c.Failures = int(*h.Failures)
	}
	port := uint32(0)
	switch {
	case h.HTTP != nil:
		c.Type, c.Path, port = "http", h.HTTP.Path, h.HTTP.Port
		if h.HTTP.Scheme == "https" {
			c.Type = "https"
		}
	case h.TCP != nil:
		c.Type, port = "tcp", h.TCP.Port
	case h.Command != nil:
		c.Type, c.Command = "command", []string{"/bin/sh", "-c", h.Command.Value}
	}
	for i, p := range f.Ports {
		if p.ContainerPort == int(port) || p.HostPort == int(port) {
			c.Port = i
		}
	}
	return c
}
