package mesos

import (
	"slices"
	"time"

	"appliance/node/model"
	"appliance/sched/mesos/wire"
)

// maxPorts bounds the ports of one task.
const maxPorts = 1000

// resources writes amounts and free ports in Mesos' form. refined frameworks
// know reservations and get no role; role is "" for frameworks that must not
// see allocations.
func resources(r model.Resources, ports []int, refined bool, role string) []wire.Resource {
	var out []wire.Resource
	add := func(res wire.Resource) {
		if !refined {
			res.Role = "*"
		}
		if role != "" {
			res.Allocation = &wire.Allocation{Role: role}
		}
		out = append(out, res)
	}
	scalar := func(name string, v float64) {
		if v > 0 {
			add(wire.Resource{Name: name, Type: wire.Scalar, Scalar: &wire.ScalarValue{Value: v}})
		}
	}
	scalar("cpus", r.CPUs)
	scalar("mem", r.Memory)
	scalar("disk", r.Disk)
	scalar("gpus", r.GPUs)
	if len(ports) > 0 {
		add(wire.Resource{Name: "ports", Type: wire.Range, Ranges: &wire.Ranges{Range: ranges(ports)}})
	}
	return out
}

// ranges joins ports, which it sorts, into ranges.
func ranges(ports []int) []wire.PortRange {
	slices.Sort(ports)
	var out []wire.PortRange
	for _, p := range ports {
		if n := len(out); n > 0 && out[n-1].End+1 == uint64(p) {
			out[n-1].End++
			continue
		}
		out = append(out, wire.PortRange{Begin: uint64(p), End: uint64(p)})
	}
	return out
}

// amounts reads resources; ports are listed. A name that we do not know, or
// too many ports, is a fault.
func amounts(list ...[]wire.Resource) (r model.Resources, ports []int, fault string) {
	for _, res := range slices.Concat(list...) {
		value := 0.0
		if res.Scalar != nil {
			value = res.Scalar.Value
		}
		if !(value >= 0) {
			return r, nil, "Invalid scalar resource " + res.Name
		}
		switch res.Name {
		case "cpus":
			r.CPUs += value
		case "mem":
			r.Memory += value
		case "disk":
			r.Disk += value
		case "gpus":
			r.GPUs += value
		case "ports":
			if res.Ranges == nil {
				continue
			}
			for _, p := range res.Ranges.Range {
				if p.End < p.Begin || p.End > 65535 || p.End-p.Begin > maxPorts || len(ports) > maxPorts {
					return r, nil, "Invalid ports resource"
				}
				for n := p.Begin; n <= p.End; n++ {
					ports = append(ports, int(n))
				}
			}
		default:
			return r, nil, "Unknown resource " + res.Name
		}
	}
	return r, ports, ""
}

func unix(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixNano()) / 1e9
}

func attributes(n *model.Node) []wire.Attribute {
	var out []wire.Attribute
	for _, k := range sortedKeys(n.Attributes) {
		out = append(out, wire.Attribute{Name: k, Type: wire.Text, Text: &wire.TextValue{Value: n.Attributes[k]}})
	}
	return out
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
