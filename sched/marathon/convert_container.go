package marathon

import (
	"fmt"
	"strconv"
	"strings"

	"appliance/node/model"
)

func index(path string, i int) string { return fmt.Sprintf("%s(%d)", path, i) }

func convertContainer(d *decoder, in *container, spec *model.AppSpec) {
	if in == nil || in.Docker == nil {
		return // sched.Validate says that the image is missing
	}
	if in.Type != "" && in.Type != "DOCKER" && in.Type != "MESOS" {
		d.addf("/container/type", "%q is not known, use DOCKER or MESOS", in.Type)
	}
	spec.Image, spec.Privileged, spec.ForcePull = in.Docker.Image, in.Docker.Privileged, in.Docker.ForcePull
	for i, p := range in.Docker.Parameters {
		convertParameter(d, index("/container/docker/parameters", i), p, spec)
	}
	for i, v := range in.Volumes {
		at := index("/container/volumes", i)
		m := model.VolumeMount{Path: v.ContainerPath, HostPath: v.HostPath, ReadOnly: v.Mode == "RO"}
		switch {
		case v.Mode != "" && v.Mode != "RO" && v.Mode != "RW":
			d.addf(at+"/mode", "%q is not known, use RO or RW", v.Mode)
		case v.Persistent != nil:
			d.add(at+"/persistent", "is not supported: use an external volume, it follows the task")
		case v.Secret != nil:
			d.add(at+"/secret", "is not supported")
		case v.External != nil:
			m.Name = v.External.Name
		}
		spec.Volumes = append(spec.Volumes, m)
	}
}

// convertParameter understands the arguments of docker run that mean
// something here. Those about the engine's own business have no effect.
func convertParameter(d *decoder, at string, p parameter, spec *model.AppSpec) {
	key, value, pair := strings.Cut(p.Value, "=")
	switch p.Key {
	case "env", "e":
		spec.Env = with(spec.Env, key, value)
	case "label", "l":
		spec.Labels = with(spec.Labels, key, value)
	case "user", "u":
		spec.User = p.Value
	case "workdir", "w":
		spec.WorkDir = p.Value
	case "privileged":
		spec.Privileged = p.Value != "false"
	case "volume", "v":
		parts := strings.Split(p.Value, ":")
		if len(parts) < 2 || pair {
			d.addf(at, "volume %q: use host:container[:ro]", p.Value)
			return
		}
		m := model.VolumeMount{Path: parts[1], ReadOnly: len(parts) > 2 && parts[2] == "ro"}
		if strings.HasPrefix(parts[0], "/") {
			m.HostPath = parts[0]
		} else {
			m.Name = parts[0]
		}
		spec.Volumes = append(spec.Volumes, m)
	case "hostname", "name", "log-driver", "log-opt", "restart", "rm":
	default:
		d.addf(at+"/key", "docker parameter %q is not supported; env, label, user, volume, workdir and privileged are", p.Key)
	}
}

func with(m map[string]string, k, v string) map[string]string {
	if m == nil {
		m = map[string]string{}
	}
	m[k] = v
	return m
}

// convertPorts reads all forms that Marathon knew: docker.portMappings (1.4),
// container.portMappings (1.5), ports and portDefinitions for host mode.
func convertPorts(d *decoder, in *document, spec *model.AppSpec) {
	spec.Network = networkMode(d, in)
	mappings, at := []portMapping(nil), "/container/portMappings"
	if in.Container != nil {
		mappings = in.Container.PortMappings
		if in.Container.Docker != nil && len(mappings) == 0 {
			mappings, at = in.Container.Docker.PortMappings, "/container/docker/portMappings"
		}
	}
	if spec.Network == model.NetworkBridge {
		for i, m := range mappings {
			spec.Ports = append(spec.Ports, model.Port{
				Name: m.Name, ContainerPort: m.ContainerPort, HostPort: m.HostPort, ServicePort: m.ServicePort,
				Protocol: protocol(d, index(at, i), m.Protocol), Labels: m.Labels,
			})
		}
		return
	}
	definitions := in.PortDefinitions
	if len(definitions) == 0 {
		for _, p := range in.Ports {
			definitions = append(definitions, portDefinition{Port: p})
		}
	}
	if in.Ports == nil && in.PortDefinitions == nil && spec.Network == model.NetworkHost {
		definitions = []portDefinition{{Name: "default"}}
	}
	for i, p := range definitions {
		port := model.Port{Name: p.Name, ServicePort: p.Port, Protocol: protocol(d, index("/portDefinitions", i), p.Protocol), Labels: p.Labels}
		if in.RequirePorts {
			port.HostPort = p.Port
		}
		spec.Ports = append(spec.Ports, port)
	}
}

func protocol(d *decoder, at, p string) string {
	switch p {
	case "":
		return "tcp"
	case "tcp", "udp":
		return p
	}
	d.addf(at+"/protocol", "%q is not supported, use tcp or udp", p)
	return ""
}

func networkMode(d *decoder, in *document) string {
	mode, at := "", "/networks"
	if len(in.Networks) > 1 {
		d.add(at, "more than one network is not supported")
	}
	if len(in.Networks) > 0 {
		mode, at = in.Networks[0].Mode, "/networks(0)/mode"
	} else if in.Container != nil && in.Container.Docker != nil {
		mode, at = in.Container.Docker.Network, "/container/docker/network"
	}
	switch mode {
	case "BRIDGE", "container/bridge":
		return model.NetworkBridge
	case "", "HOST", "host":
		return model.NetworkHost
	case "NONE", "none":
		return model.NetworkNone
	}
	d.addf(at, "%q is not supported, use bridge or host", mode)
	return ""
}

// vhostRoutes makes routes of marathon-lb's labels HAPROXY_<n>_VHOST and
// HAPROXY_<n>_PATH.
func vhostRoutes(spec *model.AppSpec) []model.Route {
	var out []model.Route
	for i := range max(len(spec.Ports), 1) {
		n := strconv.Itoa(i)
		for _, host := range strings.Split(spec.Labels["HAPROXY_"+n+"_VHOST"], ",") {
			if host = strings.ToLower(strings.TrimSpace(host)); host != "" {
				out = append(out, model.Route{Host: host, Path: spec.Labels["HAPROXY_"+n+"_PATH"], Port: i})
			}
		}
	}
	return out
}
