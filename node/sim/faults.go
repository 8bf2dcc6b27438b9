package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"time"

	"appliance/raft/rafttest"
)

// fault is one kind of trouble. It is begun on a machine, or between it and another one, and ended later.
type fault struct {
	name  string
	begin func(c *cluster, a, b *machine)
	end   func(c *cluster, a, b *machine) // nil: nothing to do
	where where
	does  []effect // all of it, each time that there is traffic
}

type where int

const (
	anyMachine where = iota
	anyMaster
	theLeader
)

// all between a and every other machine, in the directions given.
func (c *cluster) isolate(a *machine, out, in, down bool) {
	for _, b := range c.machines {
		if b != a && out {
			c.net.Cut(a.name, b.name, down)
		}
		if b != a && in {
			c.net.Cut(b.name, a.name, down)
		}
	}
}

// powerOff cuts the power, in the middle of a write if there is one soon.
func (c *cluster) powerOff(m *machine) {
	p := m.running()
	for end := time.Now().Add(100 * time.Millisecond); m.disk != nil && !m.disk.Writing() && time.Now().Before(end); {
		pause(context.Background(), 100*time.Microsecond)
	}
	c.crash(m, p, false)
}

func restart(c *cluster, a, _ *machine) { c.restart(a) }

// restart starts a machine as soon as its files are at rest and there is space, as its init system would.
func (c *cluster) restart(m *machine) {
	for m.running() == nil && !c.ending.Load() {
		if m.unknown() {
			c.coming.Go(func() { c.join(m) }) // it takes as long as the others need
			return
		}
		err := c.start(m)
		if err != nil && !errors.Is(err, syscall.ENOSPC) {
			c.failed(err)
			return
		}
		pause(context.Background(), 10*time.Millisecond)
	}
}

func disk(set func(m *machine, bad bool)) (begin, end func(*cluster, *machine, *machine)) {
	return func(_ *cluster, a, _ *machine) { set(a, true) }, func(_ *cluster, a, _ *machine) { set(a, false) }
}

func isolation(out, in bool) (begin, end func(*cluster, *machine, *machine)) {
	return func(c *cluster, a, _ *machine) { c.isolate(a, out, in, true) }, func(c *cluster, a, _ *machine) { c.isolate(a, out, in, false) }
}

var faults = func() []fault {
	kill := func(c *cluster, a, _ *machine) { c.crash(a, a.running(), true) }
	power := func(c *cluster, a, _ *machine) { c.powerOff(a) }
	cutOff, join := isolation(true, true)
	mute, unmute := isolation(true, false)
	deafen, undeafen := isolation(false, true)
	slowDisk, fastDisk := disk(func(m *machine, bad bool) {
		m.disk.SetWrite(map[bool]time.Duration{true: 150 * time.Millisecond}[bad])
	})
	hang, unhang := disk(func(m *machine, bad bool) { m.disk.Hang(bad) })
	fill := func(f rafttest.Fullness) func(*cluster, *machine, *machine) {
		return func(_ *cluster, a, _ *machine) { a.disk.Fill(f) }
	}
	slow := func(d time.Duration) func(*cluster, *machine, *machine) {
		return func(c *cluster, a, _ *machine) {
			for _, b := range c.machines {
				c.net.Slow(a.name, b.name, d)
				c.net.Slow(b.name, a.name, d)
			}
		}
	}
	lossy := func(lost, doubled float64) func(*cluster, *machine, *machine) {
		return func(c *cluster, a, _ *machine) { c.net.Lose(a.name, lost, doubled) }
	}
	oneWay := func(down bool) func(*cluster, *machine, *machine) {
		return func(c *cluster, a, b *machine) { c.net.Cut(a.name, b.name, down) }
	}
	stall := func(on bool) func(*cluster, *machine, *machine) {
		return func(c *cluster, a, _ *machine) { c.freeze(a, on) }
	}
	all := func(down bool) func(*cluster, *machine, *machine) {
		return func(c *cluster, _, _ *machine) {
			for _, m := range c.masters() {
				c.isolate(m, true, true, down)
			}
		}
	}
	return []fault{
		{"kill the leader", kill, restart, theLeader, []effect{killed}},
		{"kill", kill, restart, anyMachine, []effect{killed}},
		{"cut the power of the leader", power, restart, theLeader, []effect{powerless}},
		{"cut the power", power, restart, anyMachine, []effect{powerless}},
		{"cut the power of all masters", func(c *cluster, _, _ *machine) {
			for _, m := range c.masters() {
				c.powerOff(m)
			}
		}, func(c *cluster, _, _ *machine) {
			for _, m := range c.masters() {
				c.restart(m)
			}
		}, theLeader, []effect{powerless}},
		{"isolate", cutOff, join, anyMachine, []effect{severed}},
		{"isolate the leader", cutOff, join, theLeader, []effect{severed}},
		{"mute the leader", mute, unmute, theLeader, []effect{severed, halfway}},
		{"deafen the leader", deafen, undeafen, theLeader, []effect{severed, halfway}},
		{"deafen", deafen, undeafen, anyMaster, []effect{severed, halfway}},
		{"cut one way", oneWay(true), oneWay(false), anyMachine, []effect{severed, halfway}},
		{"cut all links", all(true), all(false), theLeader, []effect{severed}},
		{"pause", stall(true), stall(false), anyMachine, []effect{held, heldSteps}},
		{"pause the leader", stall(true), stall(false), theLeader, []effect{held, heldSteps, heldWrites}},
		{"lossy links", lossy(0.3, 0.2), lossy(0, 0), anyMachine, []effect{lost, doubled, overtaken}},
		{"slow links", slow(60 * time.Millisecond), slow(0), anyMachine, []effect{slowed}},
		{"slow disk", slowDisk, fastDisk, anyMaster, []effect{slowWrites}},
		{"slow disk of the leader", slowDisk, fastDisk, theLeader, []effect{slowWrites}},
		{"hung disk", hang, unhang, anyMaster, []effect{hungWrites}},
		{"hung disk of the leader", hang, unhang, theLeader, []effect{hungWrites}},
		{"full disk", fill(rafttest.NoSpace), fill(0), anyMaster, []effect{noSpace}},
		{"full disk of the leader", fill(rafttest.NoSpace), fill(0), theLeader, []effect{noSpace}},
		{"no space for files", fill(rafttest.NoFiles), fill(0), anyMaster, []effect{noFiles}},
		{"reset connections", func(c *cluster, a, b *machine) { c.net.Reset(a.name, b.name) }, nil, anyMachine, []effect{resets}},
		{"set the clock", func(c *cluster, a, b *machine) {
			c.setClock(a, -a.clock.off()) // a step, back or forth
		}, nil, anyMachine, []effect{jumped}},
		{"transfer leadership", func(c *cluster, a, b *machine) {
			if p := a.running(); p != nil {
				ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
				defer cancel()
				if p.node.TransferLeadership(ctx, "", "") == nil {
					c.did.add(handedOver)
				}
			}
		}, nil, theLeader, []effect{handedOver}},
		{"take a snapshot", func(c *cluster, a, b *machine) {
			if p := a.running(); p != nil {
				if p.node.Snapshot() == nil {
					c.did.add(snapshotted)
				}
			}
		}, nil, anyMaster, []effect{snapshotted}},
	}
}()

// trouble makes faults until ctx ends, up to two at a time, beside changes of who is a master, and ends them
// all before it returns.
func trouble(ctx context.Context, c *cluster, h *history, r *rand.Rand) {
	done := make(chan struct{}, 3)
	deck := make(chan fault)
	go deal(ctx, rand.New(rand.NewPCG(c.seed, 9)), deck)
	lane := func(seed uint64) {
		defer func() { done <- struct{}{} }()
		r := rand.New(rand.NewPCG(seed, 3))
		for pause(ctx, time.Duration(200+r.IntN(1500))*time.Millisecond) == nil {
			f, ok := <-deck
			if !ok {
				return
			}
			a, b := c.pick(r, f.where)
			length := time.Duration(200+r.IntN(3000)) * time.Millisecond
			if r.IntN(4) == 0 {
				length *= 3
			}
			if a == nil {
				continue
			}
			c.fault(fmt.Sprintf("%s: %s, %s for %v", f.name, a.name, b.name, length))
			before := c.effects()
			f.begin(c, a, b)
			if f.end != nil {
				pause(ctx, length)
				f.end(c, a, b)
				c.fault(fmt.Sprintf("end of %s: %s, %s", f.name, a.name, b.name))
			}
			h.fault(f, before, c.effects())
		}
	}
	go lane(r.Uint64())
	go lane(r.Uint64())
	go func() {
		defer func() { done <- struct{}{} }()
		rebuild(ctx, c, rand.New(rand.NewPCG(c.seed, 8)), h.upheaval)
	}()
	for range 3 {
		<-done
	}
}

// deal gives out all kinds of faults in turn until ctx ends, in a new order each time.
func deal(ctx context.Context, r *rand.Rand, deck chan<- fault) {
	defer close(deck)
	for {
		for _, f := range shuffled(r) {
			select {
			case deck <- f:
			case <-ctx.Done():
				return
			}
		}
	}
}

// shuffled has every effect among the first half: a run has hardly time for all faults, and should miss no effect.
func shuffled(r *rand.Rand) []fault {
	var first, rest []fault
	met := map[effect]bool{}
	for _, i := range r.Perm(len(faults)) {
		news := false
		for _, e := range faults[i].does {
			news, met[e] = news || !met[e], true
		}
		if news {
			first = append(first, faults[i])
		} else {
			rest = append(rest, faults[i])
		}
	}
	return append(first, rest...)
}

// pick chooses whom a fault meets, and another machine.
func (c *cluster) pick(r *rand.Rand, w where) (a, b *machine) {
	i, k := r.IntN(len(c.machines)), r.IntN(len(c.machines)-1)
	switch a = c.machines[i]; w {
	case anyMaster:
		a = c.machines[i%masters]
	case theLeader:
		a = c.leader()
	}
	for _, b = range c.machines {
		if b != a {
			if k == 0 {
				break
			}
			k--
		}
	}
	return a, b
}

// heal ends all trouble that is left.
func (c *cluster) heal() {
	for _, a := range c.machines {
		c.isolate(a, true, true, false)
		for _, b := range c.machines {
			c.net.Slow(a.name, b.name, 0)
		}
		c.freeze(a, false)
		c.net.Lose(a.name, 0, 0)
		if a.disk != nil {
			a.disk.Hang(false)
			a.disk.Fill(0)
			a.disk.SetWrite(0)
		}
		c.restart(a)
	}
}
