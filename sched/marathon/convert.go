package marathon

import (
	"encoding/json"
	"maps"
	"reflect"
	"strings"
	"time"

	"appliance/node/model"
)

// Defaults of Marathon.
const (
	defaultCPUs      = 1
	defaultMem       = 128 // MiB
	defaultInstances = 1
)

// parse judges a document and gives the spec that it means, with the document
// inside. Faults of the document itself come back as details; those of its
// values are for sched.Validate.
func parse(doc map[string]any, id string) (*model.AppSpec, []detail) {
	var d decoder
	doc = maps.Clone(doc)
	for _, f := range readOnlyFields {
		delete(doc, f)
	}
	var in document
	d.decode("", doc, reflect.ValueOf(&in).Elem())
	if len(d.details) > 0 {
		return nil, d.details
	}
	refuseUnsupported(&d, &in)
	spec := &model.AppSpec{
		ID: id, Args: in.Args, User: in.User, Labels: in.Labels, Instances: defaultInstances,
		Resources: model.Resources{CPUs: defaultCPUs, Memory: defaultMem, Disk: in.Disk, GPUs: in.GPUs},
		KillGrace: seconds(in.KillGrace), Env: convertEnv(&d, in.Env), Constraints: convertConstraints(&d, in.Constraints),
		Upgrade: convertUpgrade(in.UpgradeStrategy),
	}
	spec.Upgrade.Deadline = seconds(in.DeploymentTimeout)
	if in.Instances != nil {
		spec.Instances = *in.Instances
	}
	if in.CPUs != nil {
		spec.Resources.CPUs = *in.CPUs
	}
	if in.Mem != nil {
		spec.Resources.Memory = *in.Mem
	}
	if in.Cmd != nil {
		spec.Shell = *in.Cmd
	}
	convertContainer(&d, in.Container, spec)
	convertPorts(&d, &in, spec)
	convertChecks(&d, in.HealthChecks, spec)
	spec.Routes = vhostRoutes(spec)
	spec.Marathon, _ = json.Marshal(doc) // it came from JSON
	return spec, d.details
}

func seconds(s float64) model.Duration { return model.Duration(s * float64(time.Second)) }

// refuseUnsupported names what would silently be missing.
func refuseUnsupported(d *decoder, in *document) {
	no := func(bad bool, path, fault string) {
		if bad {
			d.add(path, fault)
		}
	}
	no(len(in.URIs) > 0, "/uris", "is not supported: put the files into the image or a volume")
	no(len(in.Fetch) > 0, "/fetch", "is not supported: put the files into the image or a volume")
	no(len(in.StoreURLs) > 0, "/storeUrls", "is not supported: put the files into the image or a volume")
	no(in.IPAddress != nil, "/ipAddress", "is not supported: use networks with mode container/bridge")
	no(in.Residency != nil, "/residency", "is not supported: use an external volume, it follows the task")
	no(len(in.Secrets) > 0, "/secrets", "is not supported")
	no(len(in.ReadinessChecks) > 0, "/readinessChecks", "is not supported: a task is ready when its healthChecks pass")
	no(in.Check != nil, "/check", "is not supported: use healthChecks")
	no(in.Executor != "" && in.Executor != "//cmd", "/executor", "is not supported: apps run from an image")
	for _, r := range in.Roles {
		no(r != "*", "/acceptedResourceRoles", "role "+r+" does not exist: use a constraint on a node attribute")
	}
}

func convertEnv(d *decoder, in map[string]any) map[string]string {
	if len(in) == 0 {
		return nil
	}
	out := map[string]string{}
	for _, k := range sortedKeys(in) {
		s, ok := in[k].(string)
		if !ok {
			d.add("/env/"+k, "error.expected.jsstring")
		}
		out[k] = s
	}
	return out
}

func convertConstraints(d *decoder, in [][]string) []model.Constraint {
	var out []model.Constraint
	for i, c := range in {
		if len(c) < 2 || len(c) > 3 {
			d.addf(index("/constraints", i), "needs [field, operator] or [field, operator, value]")
			continue
		}
		k := model.Constraint{Attribute: c[0], Operator: c[1]}
		if len(c) == 3 {
			k.Value = c[2]
		}
		out = append(out, k)
	}
	return out
}

// nothingOver is "no extra instance" beside a minimum of 0; plain zeros would
// read as "no policy".
const nothingOver = 1e-9

func convertUpgrade(in *upgradeStrategy) model.UpgradePolicy {
	p := model.UpgradePolicy{MinHealth: 1, MaxOver: 1}
	if in != nil && in.MinimumHealthCapacity != nil {
		p.MinHealth = *in.MinimumHealthCapacity
	}
	if in != nil && in.MaximumOverCapacity != nil {
		p.MaxOver = *in.MaximumOverCapacity
	}
	if p.MinHealth == 0 && p.MaxOver == 0 {
		p.MaxOver = nothingOver
	}
	return p
}

// neverKill stands for maxConsecutiveFailures 0.
const neverKill = 1 << 30

func convertChecks(d *decoder, in []healthCheck, spec *model.AppSpec) {
	or := func(v *float64, or float64) model.Duration {
		if v == nil {
			return seconds(or)
		}
		return seconds(*v)
	}
	for i, h := range in {
		at := index("/healthChecks", i)
		c := model.Check{Path: h.Path, Port: h.PortIndex, Grace: or(h.Grace, 300), Interval: or(h.Interval, 60), Timeout: or(h.Timeout, 20), Failures: 3}
		if h.MaxFailures != nil {
			if c.Failures = *h.MaxFailures; c.Failures == 0 {
				c.Failures = neverKill
			}
		}
		switch p := strings.TrimPrefix(h.Protocol, "MESOS_"); p {
		case "", "HTTP", "HTTPS", "TCP":
			if c.Type = strings.ToLower(p); p == "" {
				c.Type = "http"
			}
			if c.Type != "tcp" && c.Path == "" {
				c.Path = "/"
			}
			if h.Port != nil {
				c.Port = portIndex(spec, *h.Port)
				if c.Port < 0 {
					d.addf(at+"/port", "%d is not a port of the app: use portIndex", *h.Port)
				}
			}
		case "COMMAND":
			c.Type, c.Path = "command", ""
			if h.Command != nil {
				c.Command = []string{"/bin/sh", "-c", h.Command.Value}
			}
		default:
			d.addf(at+"/protocol", "%q is not known", h.Protocol)
			continue
		}
		spec.Checks = append(spec.Checks, c)
	}
}

// portIndex finds a port by number, -1 if the app does not have it.
func portIndex(spec *model.AppSpec, port int) int {
	for i, p := range spec.Ports {
		if p.ContainerPort == port || p.HostPort == port {
			return i
		}
	}
	return -1
}
