package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sort"
	"strconv"
	"strings"

	"appliance/node/model"
	"appliance/node/runtime"
)

// Labels by which containers of ours are found again.
const (
	labelNode    = "appliance.node"
	labelTask    = "appliance.task"
	labelApp     = "appliance.app"
	labelRelease = "appliance.release"
)

// maxContainerID leaves room below the 76 bytes that engines allow.
const maxContainerID = 64

// containerID makes a name of the task id that every engine and file system
// accepts. It is deterministic; different tasks get different names.
func containerID(task string) string {
	var b strings.Builder
	clean := true
	for _, r := range task {
		ok := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		switch {
		case ok:
			b.WriteRune(r)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
			clean = clean && r == '-'
		default:
			clean = false
		}
	}
	name := strings.TrimSuffix(b.String(), "-")
	if clean && name == task && len(name) <= maxContainerID {
		return name
	}
	sum := sha256.Sum256([]byte(task))
	if len(name) > maxContainerID-9 {
		name = name[:maxContainerID-9]
	}
	return strings.Trim(name+"-"+hex.EncodeToString(sum[:4]), "-")
}

// pinned replaces the tag of a reference by the digest that was decided when
// the release was made.
func pinned(image, digest string) string {
	ref := image
	if i := strings.IndexByte(ref, '@'); i >= 0 {
		ref = ref[:i]
	}
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		ref = ref[:i]
	}
	return ref + "@" + digest
}

// localImage is the reference under which the node pulls: images of the
// cluster's registry, which have no host part of their own, come through the
// node's loopback endpoint.
func localImage(image, registry string) string {
	first, _, slash := strings.Cut(image, "/")
	if slash && (strings.ContainsAny(first, ".:") || first == "localhost") {
		return image
	}
	return registry + "/" + image
}

// foreignSpec is the task of an external framework in our words.
func foreignSpec(f *model.ForeignTask) model.AppSpec {
	spec := model.AppSpec{ID: f.Name, Image: f.Image, Env: f.Env, Labels: f.Labels, Network: f.Network,
		Ports: f.Ports, User: f.User, KillGrace: f.KillWait}
	if f.Shell {
		spec.Shell = f.Value
	} else if f.Value != "" {
		spec.Command, spec.Args = []string{f.Value}, f.Args
		if len(f.Args) > 0 && f.Image == "" {
			spec.Args = f.Args[1:] // Mesos: arguments[0] is argv[0]
		}
	} else {
		spec.Args = f.Args
	}
	if f.Check != nil {
		spec.Checks = []model.Check{*f.Check}
	}
	return spec
}

// mount is a cluster volume that has been mounted on the host.
type mount struct {
	model.VolumeMount
	dir string
}

// containerSpec is the pure step from task to container.
func containerSpec(cfg Config, t model.Task, spec model.AppSpec, mounts []mount) runtime.ContainerSpec {
	c := runtime.ContainerSpec{
		ID:          containerID(t.ID),
		Image:       localImage(spec.Image, cfg.Registry),
		Entrypoint:  spec.Command,
		Args:        spec.Args,
		Env:         environment(cfg, t, spec),
		WorkDir:     spec.WorkDir,
		User:        spec.User,
		Hostname:    hostname(t.ID),
		Network:     runtime.NetworkMode(spec.Network),
		Nameservers: cfg.Nameservers,
		Resources: runtime.Resources{
			CPUs:        t.Resources.CPUs,
			MemoryBytes: int64(t.Resources.Memory * (1 << 20)),
		},
		GracePeriod: spec.KillGrace.D(),
		Privileged:  spec.Privileged,
		LogDir:      LogDir(cfg.Dir, t.ID),
		Labels: map[string]string{
			labelNode: cfg.Node, labelTask: t.ID, labelApp: t.App, labelRelease: strconv.FormatUint(t.Release, 10),
		},
	}
	if spec.Shell != "" {
		c.Entrypoint, c.Args = []string{"/bin/sh", "-c", spec.Shell}, nil
	}
	if c.Network == "" {
		c.Network = runtime.NetworkBridge
	}
	if c.Network == runtime.NetworkHost {
		c.Hostname = "" // the node's
	}
	for _, m := range mounts {
		c.Mounts = append(c.Mounts, runtime.Mount{Source: m.dir, Destination: m.Path, ReadOnly: m.ReadOnly})
	}
	if c.Network == runtime.NetworkBridge {
		c.Ports = mappings(t, spec)
	}
	return c
}

func mappings(t model.Task, spec model.AppSpec) []runtime.PortMapping {
	var out []runtime.PortMapping
	for i, p := range spec.Ports {
		if i >= len(t.Ports) {
			break
		}
		inside := p.ContainerPort
		if inside == 0 {
			inside = t.Ports[i]
		}
		for _, proto := range strings.Split(p.Protocol, ",") { // Marathon allows "udp,tcp"
			out = append(out, runtime.PortMapping{HostPort: uint16(t.Ports[i]), ContainerPort: uint16(inside), Protocol: proto})
		}
	}
	return out
}

// hostname is the short form of the task id: what comes after the last dot.
func hostname(task string) string {
	id := containerID(task)
	if i := strings.LastIndexByte(task, '.'); i >= 0 {
		id = containerID(task[i+1:])
	}
	const maxHost = 63 // RFC 1123 label
	if len(id) > maxHost {
		id = id[len(id)-maxHost:]
	}
	return strings.Trim(id, "-")
}

// environment joins what Mesos, Marathon and we promise with the user's own
// variables, which win.
func environment(cfg Config, t model.Task, spec model.AppSpec) []string {
	vars := map[string]string{
		"HOST":              cfg.Name,
		"MESOS_TASK_ID":     t.ID,
		"MARATHON_APP_ID":   t.App,
		"APPLIANCE_APP":     t.App,
		"APPLIANCE_TASK_ID": t.ID,
		"APPLIANCE_NODE":    cfg.Name,
		"APPLIANCE_ENV":     t.Env,
		"APPLIANCE_RELEASE": strconv.FormatUint(t.Release, 10),
	}
	if t.App != "" {
		vars["MARATHON_APP_VERSION"] = strconv.FormatUint(t.Release, 10)
		vars["MARATHON_APP_DOCKER_IMAGE"] = spec.Image
		vars["MARATHON_APP_RESOURCE_CPUS"] = fmt.Sprint(t.Resources.CPUs)
		vars["MARATHON_APP_RESOURCE_MEM"] = fmt.Sprint(t.Resources.Memory)
	}
	if t.Foreign != nil {
		vars["MESOS_SANDBOX"], vars["MESOS_DIRECTORY"] = mesosSandbox, mesosSandbox
	}
	var list []string
	for i, p := range t.Ports {
		vars[fmt.Sprintf("PORT%d", i)] = strconv.Itoa(p)
		list = append(list, strconv.Itoa(p))
		if i < len(spec.Ports) {
			if c := spec.Ports[i].ContainerPort; c != 0 {
				vars[fmt.Sprintf("PORT_%d", c)] = strconv.Itoa(p)
			}
			if name := spec.Ports[i].Name; name != "" {
				vars["PORT_"+strings.ToUpper(strings.ReplaceAll(name, "-", "_"))] = strconv.Itoa(p)
			}
		}
	}
	if len(list) > 0 {
		vars["PORT"], vars["PORTS"] = list[0], strings.Join(list, ",")
	}
	for k, v := range spec.Env {
		vars[k] = v
	}
	out := make([]string, 0, len(vars))
	for k, v := range vars {
		if v != "" || spec.Env[k] != "" || hasKey(spec.Env, k) {
			out = append(out, k+"="+v)
		}
	}
	sort.Strings(out)
	return out
}

func hasKey(m map[string]string, k string) bool { _, ok := m[k]; return ok }
