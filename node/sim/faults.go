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
	power := func(c *cluster, a, _ *machine) { c.crash(a, a.running(), false) }
	cutOff, join := isolation(true, true)
	mute, unmute := isolation(true, false)
	deafen, undeafen := isolation(false, true)
	slowDisk, fastDisk := disk(func(m *machine, bad bool) {
		m.disk.SetWrite(map[bool]time.Duration{true: 150 * time.Millisecond, false: 500 * time.Microsecond}[bad])
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
		return func(c *cluster, a, _ *machine) { c.net.Pause(a.name, on) }
	}
	all := func(down bool) func(*cluster, *machine, *machine) {
		return func(c *cluster, _, _ *machine) {
			for _, m := range c.masters() {
				c.isolate(m, true, true, down)
			}
		}
	}
	return []fault{
		{"kill the leader", kill, restart, theLeader},
		{"kill", kill, restart, anyMachine},
		{"cut the power of the leader", power, restart, theLeader},
		{"cut the power", power, restart, anyMachine},
		{"cut the power of all masters", func(c *cluster, _, _ *machine) {
			for _, m := range c.masters() {
				c.crash(m, m.running(), false)
			}
		}, func(c *cluster, _, _ *machine) {
			for _, m := range c.masters() {
				c.restart(m)
			}
		}, theLeader},
		{"isolate", cutOff, join, anyMachine},
		{"isolate the leader", cutOff, join, theLeader},
		{"mute the leader", mute, unmute, theLeader},
		{"deafen the leader", deafen, undeafen, theLeader},
		{"deafen", deafen, undeafen, anyMaster},
		{"cut one way", oneWay(true), oneWay(false), anyMachine},
		{"cut all links", all(true), all(false), theLeader},
		{"pause", stall(true), stall(false), anyMachine},
		{"pause the leader", stall(true), stall(false), theLeader},
		{"lossy links", lossy(0.3, 0.2), lossy(0, 0), anyMachine},
		{"slow links", slow(60 * time.Millisecond), slow(0), anyMachine},
		{"slow disk", slowDisk, fastDisk, anyMaster},
		{"slow disk of the leader", slowDisk, fastDisk, theLeader},
		{"hung disk", hang, unhang, anyMaster},
		{"hung disk of the leader", hang, unhang, theLeader},
		{"full disk", fill(rafttest.NoSpace), fill(0), anyMaster},
		{"full disk of the leader", fill(rafttest.NoSpace), fill(0), theLeader},
		{"no space for files", fill(rafttest.NoFiles), fill(0), anyMaster},
		{"reset connections", func(c *cluster, a, b *machine) { c.net.Reset(a.name, b.name) }, nil, anyMachine},
		{"set the clock", func(c *cluster, a, b *machine) {
			a.clock.set(-a.clock.off()) // a step, back or forth
		}, nil, anyMachine},
		{"transfer leadership", func(c *cluster, a, b *machine) {
			if p := a.running(); p != nil {
				ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
				defer cancel()
				p.node.TransferLeadership(ctx, "", "")
			}
		}, nil, theLeader},
		{"take a snapshot", func(c *cluster, a, b *machine) {
			if p := a.running(); p != nil {
				p.node.Snapshot()
			}
		}, nil, anyMaster},
	}
}()

// trouble makes faults until ctx ends, up to two at a time, beside changes of who is a master, and ends them
// all before it returns.
func trouble(ctx context.Context, c *cluster, r *rand.Rand, count func(name string)) {
	done := make(chan struct{}, 3)
	lane := func(seed uint64) {
		defer func() { done <- struct{}{} }()
		r := rand.New(rand.NewPCG(seed, 3))
		for pause(ctx, time.Duration(200+r.IntN(1500))*time.Millisecond) == nil {
			f := faults[r.IntN(len(faults))]
			a, b := c.pick(r, f.where)
			length := time.Duration(200+r.IntN(3000)) * time.Millisecond
			if r.IntN(4) == 0 {
				length *= 3
			}
			if a == nil {
				continue
			}
			count(f.name)
			c.fault(fmt.Sprintf("%s: %s, %s for %v", f.name, a.name, b.name, length))
			f.begin(c, a, b)
			if f.end != nil {
				pause(ctx, length)
				f.end(c, a, b)
				c.fault(fmt.Sprintf("end of %s: %s, %s", f.name, a.name, b.name))
			}
		}
	}
	go lane(r.Uint64())
	go lane(r.Uint64())
	go func() {
		defer func() { done <- struct{}{} }()
		rebuild(ctx, c, rand.New(rand.NewPCG(c.seed, 8)), count)
	}()
	for range 3 {
		<-done
	}
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
		c.net.Pause(a.name, false)
		c.net.Lose(a.name, 0, 0)
		if a.disk != nil {
			a.disk.Hang(false)
			a.disk.Fill(0)
			a.disk.SetWrite(500 * time.Microsecond)
		}
		c.restart(a)
	}
}
