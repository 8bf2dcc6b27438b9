package sched

import (
	"fmt"
	"hash/fnv"
	"slices"

	"appliance/node/model"
)

// ReservedPorts are host ports that our own services use on every node; a
// task never gets one.
var ReservedPorts = []int{53, 80, 443, 5000, 5050, 5051, 7600, 7601, 8500, 8600}

// wantsPorts reports whether tasks of the spec occupy host ports.
func wantsPorts(spec *model.AppSpec) bool {
	return spec.Network != model.NetworkNone && len(spec.Ports) > 0
}

// choosePorts picks the host ports of one task: the fixed ones as they are,
// the others from the node's range. The search starts at a place derived from
// the task's id, so that a port that was just freed is rarely taken again at
// once: a client that still knows the old owner would reach the wrong app.
func choosePorts(o *Offer, spec *model.AppSpec, task string) ([]int, string) {
	if !wantsPorts(spec) {
		return nil, ""
	}
	ports := make([]int, len(spec.Ports))
	mine := map[int]bool{}
	for i, p := range spec.Ports {
		if p.HostPort == 0 {
			continue
		}
		if why := portTaken(o, p.HostPort); why != "" {
			return nil, why
		}
		ports[i], mine[p.HostPort] = p.HostPort, true
	}
	r := PortRange(o.Node)
	size := r[1] - r[0] + 1
	next := int(startOf(task) % uint32(size))
	tried := 0
	for i := range ports {
		for ports[i] == 0 {
			if tried == size {
				return nil, fmt.Sprintf("wants %d free ports, all of %d-%d are taken", len(ports), r[0], r[1])
			}
			p := r[0] + next
			next, tried = (next+1)%size, tried+1
			if !o.Ports[p] && !mine[p] && !slices.Contains(ReservedPorts, p) {
				ports[i], mine[p] = p, true
			}
		}
	}
	return ports, ""
}

func portTaken(o *Offer, port int) string {
	if slices.Contains(ReservedPorts, port) {
		return fmt.Sprintf("wants port %d, which the node itself uses", port)
	}
	if !o.Ports[port] {
		return ""
	}
	for _, t := range o.Tasks {
		if slices.Contains(t.Ports, port) {
			return fmt.Sprintf("wants port %d, task %s has it", port, t.ID)
		}
	}
	return fmt.Sprintf("wants port %d, it is taken", port)
}

func startOf(task string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(task))
	return h.Sum32()
}
