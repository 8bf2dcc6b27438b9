package sched

import (
	"fmt"
	"path"
	"regexp"
	"strings"

	"appliance/node/model"
)

func validatePorts(f *faults, spec *model.AppSpec) {
	switch spec.Network {
	case "", model.NetworkBridge, model.NetworkHost, model.NetworkNone:
	default:
		f.add("/network", "%q is not known; use bridge, host or none", spec.Network)
	}
	f.check(len(spec.Ports) <= maxPorts, "/ports", "are more than %d", maxPorts)
	names, hosts, inner := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for i, p := range spec.Ports {
		at := fmt.Sprintf("/ports(%d)", i)
		port := func(field string, n int) {
			f.check(n >= 0 && n <= 65535, at+"/"+field, "%d is not a port, use 0-65535", n)
		}
		port("containerPort", p.ContainerPort)
		port("hostPort", p.HostPort)
		port("servicePort", p.ServicePort)
		proto := p.Protocol
		if proto == "" {
			proto = "tcp"
		}
		f.check(proto == "tcp" || proto == "udp", at+"/protocol", "%q is not known; use tcp or udp", p.Protocol)
		unique(f, names, p.Name, at+"/name", "name %s is used twice")
		if p.HostPort != 0 {
			unique(f, hosts, fmt.Sprint(p.HostPort), at+"/hostPort", "host port %s is used twice")
		}
		if p.ContainerPort != 0 && spec.Network != model.NetworkHost {
			unique(f, inner, fmt.Sprintf("%d/%s", p.ContainerPort, proto), at+"/containerPort", "container port %s is used twice")
		}
	}
}

// unique adds a fault if key, unless empty, is in seen already.
func unique(f *faults, seen map[string]bool, key, path, format string) {
	if key == "" {
		return
	}
	f.check(!seen[key], path, format, key)
	seen[key] = true
}

var volumeName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$`)

func validateVolumes(f *faults, volumes []model.VolumeMount) {
	f.check(len(volumes) <= maxVolumes, "/volumes", "are more than %d", maxVolumes)
	paths := map[string]bool{}
	for i, v := range volumes {
		at := fmt.Sprintf("/volumes(%d)", i)
		f.check((v.Name == "") != (v.HostPath == ""), at, "needs either a name or a host path")
		f.check(v.Name == "" || volumeName.MatchString(v.Name), at+"/name", "%q: use up to 63 of a-z, A-Z, 0-9, _ . -", v.Name)
		f.check(v.HostPath == "" || absolute(v.HostPath), at+"/hostPath", "%q must be a clean absolute path", v.HostPath)
		f.check(absolute(v.Path) && v.Path != "/", at+"/path", "%q must be a clean absolute path below /", v.Path)
		unique(f, paths, v.Path, at+"/path", "path %s is used twice")
	}
}

func absolute(p string) bool {
	return path.IsAbs(p) && path.Clean(p) == p && !strings.Contains(p, "\x00")
}

func validateChecks(f *faults, spec *model.AppSpec) {
	f.check(len(spec.Checks) <= maxChecks, "/checks", "are more than %d", maxChecks)
	for i, c := range spec.Checks {
		at := fmt.Sprintf("/checks(%d)", i)
		switch c.Type {
		case "http", "https", "tcp":
			f.check(c.Port >= 0 && c.Port < len(spec.Ports), at+"/port", "index %d: the app has %d ports", c.Port, len(spec.Ports))
			f.check(c.Path == "" || strings.HasPrefix(c.Path, "/"), at+"/path", "%q must begin with /", c.Path)
		case "command":
			f.check(len(c.Command) > 0, at+"/command", "is missing")
		default:
			f.add(at+"/type", "%q is not known; use http, https, tcp or command", c.Type)
		}
		f.check(c.Interval >= 0, at+"/interval", "is negative")
		f.check(c.Timeout >= 0, at+"/timeout", "is negative")
		f.check(c.Grace >= 0, at+"/grace", "is negative")
		f.check(c.Failures >= 0, at+"/failures", "is negative")
	}
}

var hostName = regexp.MustCompile(`^(\*\.)?[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)

func validateRoutes(f *faults, spec *model.AppSpec) {
	f.check(len(spec.Routes) <= maxRoutes, "/routes", "are more than %d", maxRoutes)
	seen := map[string]bool{}
	for i, r := range spec.Routes {
		at := fmt.Sprintf("/routes(%d)", i)
		f.check(len(r.Host) <= 253 && hostName.MatchString(r.Host), at+"/host", "%q is not a host name", r.Host)
		f.check(r.Path == "" || strings.HasPrefix(r.Path, "/"), at+"/path", "%q must begin with /", r.Path)
		f.check(r.Port >= 0 && r.Port < max(len(spec.Ports), 1), at+"/port", "index %d: the app has %d ports", r.Port, len(spec.Ports))
		unique(f, seen, r.Host+r.Path, at, "%s is used twice")
	}
}

func validateVars(f *faults, at string, vars map[string]string) {
	size := 0
	for k, v := range vars {
		f.check(k != "" && !strings.ContainsAny(k, "=\x00"), at, "name %q is empty or has a =", k)
		f.check(!strings.Contains(v, "\x00"), at+"/"+k, "has a zero byte")
		size += len(k) + len(v)
	}
	f.check(len(vars) <= maxVars, at, "has %d entries, at most %d are allowed", len(vars), maxVars)
	f.check(size <= maxVarBytes, at, "has %d bytes, at most %d are allowed", size, maxVarBytes)
}
