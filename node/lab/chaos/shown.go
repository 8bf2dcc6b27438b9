package chaos

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"appliance/node/api"
	"appliance/node/doctor"
)

const shownRule = "one-way links and wrong clocks are shown by net and doctor while they last"

const (
	// shownTime bounds the way from a fault to the doctor's word: calls are lost
	// for some seconds until a link counts as broken, and it must stay so for
	// five; the rest is for a busy machine.
	shownTime = 12 * time.Second
	// showEvery parts the looks at one node, each of which may take doctorTime.
	showEvery  = time.Second
	doctorTime = 10 * time.Second
)

// shown looks whether nodes that can know of the fault say so in time.
func (r *run) shown(ctx context.Context, kind string, a Active) {
	r.wrong.check(shownRule, 1)
	began := time.Now()
	ends := began.Add(shownTime)
	if a.Until.Before(ends) {
		ends = a.Until
	}
	look, found := context.WithCancel(ctx)
	defer found()
	var mu sync.Mutex
	by, after := "", time.Duration(0)
	var group sync.WaitGroup
	for _, n := range r.load.nodes {
		if !knows(kind, a, n.name) {
			continue
		}
		group.Go(func() {
			for asked := time.Now(); look.Err() == nil && asked.Before(ends); asked = time.Now() {
				if n.shows(look, kind, a) {
					mu.Lock()
					if by == "" {
						by, after = n.name, asked.Sub(began)
					}
					mu.Unlock()
					found()
				}
				pause(look, showEvery)
			}
		})
	}
	group.Wait()
	switch {
	case by != "":
		r.say("   %s is shown by %s after %.1f s", a.Title, by, after.Seconds())
	case ctx.Err() == nil:
		r.wrong.violate(shownRule, "no node that can know has shown %s within %s", a.Title, ends.Sub(began).Round(time.Millisecond))
	}
}

// knows says whether a machine can know of the fault: of a one-way link the
// side that hears the other, of a wrong clock every other machine.
func knows(kind string, a Active, machine string) bool {
	if kind == OneWay {
		return slices.Contains(a.groups[0], machine)
	}
	return !slices.Contains(a.Machines, machine)
}

// shows asks a node. The doctor, who asks everybody, is asked if the matrix
// shows the fault already.
func (n *node) shows(ctx context.Context, kind string, a Active) bool {
	ctx, cancel := context.WithTimeout(ctx, doctorTime)
	defer cancel()
	matrix, err := get[api.Net](ctx, n, api.Prefix+"/net")
	if err != nil || !inNet(matrix, kind, a) {
		return false
	}
	report, err := get[doctor.Report](ctx, n, api.Prefix+"/doctor")
	return err == nil && inReport(report, matrix, kind, a)
}

// inNet says whether the matrix shows the fault: one of the links that are cut
// one way, or the clocks of all machines on the right side.
func inNet(matrix api.Net, kind string, a Active) bool {
	if kind == OneWay {
		return slices.ContainsFunc(matrix.Faults, a.oneWay)
	}
	for _, m := range a.Machines {
		if !slices.ContainsFunc(matrix.Nodes, func(v api.NetNode) bool {
			return v.Name == m && v.ClockMS != nil && math.Abs(*v.ClockMS/float64(a.offset.Milliseconds())-1) < 0.5
		}) {
			return false
		}
	}
	return len(a.Machines) > 0
}

// oneWay says whether a broken link is one that the fault has cut.
func (a Active) oneWay(f api.NetFault) bool {
	return f.Kind == "one-way" && slices.Contains(a.groups[0], f.From) && slices.Contains(a.groups[1], f.To)
}

// inReport says whether the doctor names the fault: such a link in the words of
// the matrix, or the clocks of all machines.
func inReport(report doctor.Report, matrix api.Net, kind string, a Active) bool {
	if kind == OneWay {
		return slices.ContainsFunc(matrix.Faults, func(l api.NetFault) bool {
			return a.oneWay(l) && slices.ContainsFunc(report.Findings, func(f doctor.Finding) bool { return f.Code == doctor.BrokenLink && f.What == l.What })
		})
	}
	for _, m := range a.Machines {
		if !slices.ContainsFunc(report.Findings, func(f doctor.Finding) bool { return f.Code == doctor.ClockOffset && f.Node == m }) {
			return false
		}
	}
	return len(a.Machines) > 0
}
