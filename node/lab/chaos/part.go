package chaos

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"appliance/node/lab/fault"
)

// Part is what one scenario has brought.
type Part struct {
	Scenario string        `json:"scenario"`
	Faults   int           `json:"faults"`
	Refused  int           `json:"refused,omitempty"` // because the masters' majority was at stake, or nobody led
	Effect   uint64        `json:"effect"`            // kills, stops, dropped frames, disk operations hit, clocks and addresses that services have shown
	Took     time.Duration `json:"took_ns"`
	Settled  time.Duration `json:"settled_ns"` // from the heal to everything at target
	Notes    int           `json:"notes"`      // acknowledged, and read again
	Clients  []Tally       `json:"clients"`
	// Handovers are those of leaders with sick disks.
	Handovers []Handover `json:"handovers,omitempty"`
}

// scenario carries one out, heals, and looks at everything.
func (r *run) scenario(ctx context.Context, sc Scenario, length time.Duration) error {
	if sc.Skewed && !r.skewed(ctx) {
		r.wrong.note("%s was left out: it needs the test build (make build-skewed)", sc.Name)
		return nil
	}
	r.say("== %s: %s", sc.Name, sc.What)
	p := Part{Scenario: sc.Name}
	before := r.hits()
	began := time.Now()
	events := sc.events(length)
	var group sync.WaitGroup
	defer group.Wait()
	handovers := make(chan Handover, len(events))
	old := "" // the last leader whose disk was sick
	for _, e := range events {
		pause(ctx, time.Until(began.Add(e.at)))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		a, err := r.insist(ctx, e.step)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.tell(sc.Name, e.step, err)
		switch {
		case err == nil:
			p.Faults++
			r.say("   %s", a.Title)
			if e.step.Yields {
				old = a.Machines[0]
				group.Go(func() { handovers <- r.sick(ctx, a) })
			}
			if e.step.Shown {
				group.Go(func() { r.shown(ctx, e.step.Do, a) })
			}
		default:
			p.Refused++
			r.say("   not done: %s %s: %v", e.step.Do, e.step.On, err)
		}
		if err == nil && (e.step.Do == PowerOff || e.step.Do == wipe || e.step.Do == restart || e.step.Do == rotate) {
			p.Effect++
		}
	}
	pause(ctx, time.Until(began.Add(length)))
	if r.hits() > before { // machines that were off have forgotten theirs
		p.Effect += r.hits() - before
	}
	healed := time.Now()
	r.heal(ctx)
	r.recover(ctx)
	r.rotated(ctx)
	p.Settled, p.Took = time.Since(healed), time.Since(began)
	group.Wait()
	if ctx.Err() != nil {
		return ctx.Err() // what an interrupted run cannot read is not lost
	}
	close(handovers)
	if old != "" {
		r.handedOver(&p, handovers)
		r.follows(ctx, old)
	}
	r.readBack(ctx, &p)
	r.watch.hashes(ctx)
	r.sizes = append(r.sizes, r.measure(ctx))
	if !sc.calm() {
		r.calm = time.Since(r.began)
	}
	p.Clients = r.load.crowd.swap()
	r.report.Parts = append(r.report.Parts, p)
	r.say("   %d faults, at target %.1f s after the heal, %d violations so far", p.Faults, p.Settled.Seconds(), r.wrong.violations())
	return nil
}

// handedOver judges what became of leaders with sick disks.
func (r *run) handedOver(p *Part, all <-chan Handover) {
	for h := range all {
		if h.led() {
			h.judge(r.wrong)
			p.Handovers = append(p.Handovers, h)
		}
	}
	if len(p.Handovers) == 0 {
		r.wrong.violate(handoverRule, "no fault hit a machine that led")
	}
}

// readBack looks for every acknowledged write.
func (r *run) readBack(ctx context.Context, p *Part) {
	if err := again(ctx, settleTime, func(ctx context.Context) error { return r.load.kv.check(ctx, r.load.any()) }); err != nil && ctx.Err() == nil {
		r.wrong.violate(targetRule, "the keys cannot be read: %v", err)
	}
	p.Notes += r.load.checkNotes(ctx)
}

// step does what a step says.
func (r *run) step(ctx context.Context, st Step) (Active, error) {
	if st.Do == rotate {
		return r.rotate(ctx)
	}
	gs := groups(st.On)
	for _, g := range gs {
		for i, word := range g {
			g[i] = r.turn(word)
		}
	}
	if st.Do != restart && st.Do != wipe {
		spec := st.Spec
		spec.Kind, spec.Groups, spec.For = st.Do, gs, st.For
		return r.control.Begin(ctx, spec)
	}
	list, err := r.control.resolve(ctx, gs[:1])
	if err == nil {
		err = r.control.canSpare(ctx, list[0])
	}
	if err != nil {
		return Active{}, err
	}
	for _, m := range list[0] {
		if st.Do == wipe {
			err = errors.Join(err, r.lab.Wipe(ctx, m))
		} else {
			err = errors.Join(err, r.lab.Stop(ctx, m), r.lab.Start(ctx, m))
		}
	}
	return Active{Title: st.Do + " " + strings.Join(list[0], " "), Machines: list[0]}, err
}

// turn replaces the words for machines in turn.
func (r *run) turn(word string) string {
	switch word {
	case "next":
		r.next++
		return r.cluster.Machines[(r.next-1)%len(r.cluster.Machines)].Name
	case "nextmaster":
		masters := r.cluster.Masters()
		r.nextM++
		return masters[(r.nextM-1)%len(masters)].Name
	}
	return word
}

func (r *run) heal(ctx context.Context) {
	if err := again(ctx, settleTime, r.control.Heal); err != nil {
		r.wrong.violate(targetRule, "the faults cannot be healed: %v", err)
	}
	st, err := r.lab.Status(ctx)
	if err != nil {
		return
	}
	for _, m := range st.Machines { // one that a failed step left off
		if m.Power == "off" || m.Service != nil && m.Service.State == "stopped" && m.Member {
			if err := r.lab.Start(ctx, m.Name); err != nil {
				r.wrong.violate(targetRule, "%s cannot be started: %v", m.Name, err)
			}
		}
	}
}

// recover waits until everything is at target.
func (r *run) recover(ctx context.Context) {
	r.wrong.check(targetRule, 1)
	if err := again(ctx, settleTime, r.watch.settled); err != nil && ctx.Err() == nil {
		r.wrong.violate(targetRule, "%v", err)
		// Later scenarios should be about themselves.
		if err := again(ctx, 2*settleTime, r.watch.settled); err != nil {
			r.say("   still not at target: %v", err)
		}
	}
}

// hits sums up what the machines have counted.
func (r *run) hits() (n uint64) {
	for _, m := range r.cluster.Machines {
		list, _ := r.lab.Ended(m.Name)
		for _, e := range list {
			n += e.Hits
		}
	}
	return n
}

// skewed says whether the lab's binary is the test build.
func (r *run) skewed(ctx context.Context) bool {
	out, err := r.lab.Output(ctx, r.cluster.Machines[0].Name, "appliance", "--version")
	return err == nil && strings.Contains(string(out), fault.SkewedMark)
}
