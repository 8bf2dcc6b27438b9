package vip

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var epoch = time.Unix(1e9, 0)

func TestStalledHolderDropsFirst(t *testing.T) {
	c := Settings{Source: netip.MustParseAddr("10.0.0.1"), Priority: 200, Interval: 100 * time.Millisecond, Preempt: true}
	s, _ := Step(c, State{}, Event{Kind: LinkUp}, epoch)
	s, acts := Step(c, s, Event{Kind: Tick}, s.Wake)
	if s.Phase != Active || acts[0] != AddAddress {
		t.Fatalf("%v %v", s.Phase, acts)
	}
	late := s.Last.Add(c.MasterDown(s) + time.Millisecond)
	for _, e := range []Event{{Kind: Tick}, {Kind: Heard, Advert: Advert{Priority: 1, Interval: c.Interval}}, {Kind: Well}} {
		if s, acts := Step(c, s, e, late); len(acts) == 0 || acts[0] != RemoveAddress || s.Phase.Holds() {
			t.Errorf("%v after a stall: %v, %v", e.Kind, s.Phase, acts)
		}
	}
}

// peer is a simulated node: the machine plus what its actions did.
type peer struct {
	c     Settings
	s     State
	holds bool
	cut   bool // off the network
	mute  bool // hears, and is not heard
	dead  bool // its process does not run
}

// world is a simulated link with a lease.
type world struct {
	now    time.Time
	peers  []*peer
	holder *peer // of the lease
	until  time.Time
	cache  *peer // where visitors, who hear everybody, believe the address to be
	queue  []func()
	fence  func(format string, args ...any)
}

func (w *world) step(p *peer, e Event) {
	if p.dead {
		return
	}
	var acts []Action
	p.s, acts = Step(p.c, p.s, e, w.now)
	for _, a := range acts {
		w.act(p, a)
	}
	if p.c.Fenced {
		n := 0
		for _, q := range w.peers {
			// A stalled process is fenced by the kernel's lifetime, not by us.
			if q.holds && !q.dead {
				n++
			}
		}
		if n > 1 {
			w.fence("%d holders at %v", n, w.now.Sub(epoch))
		}
	}
}

func (w *world) act(p *peer, a Action) {
	switch a {
	case AddAddress:
		p.holds = true
	case RemoveAddress:
		p.holds = false
	case Announce:
		w.cache = p
	case SendAdvert, SendLeave:
		adv := Advert{VRID: 1, Priority: p.c.priority(p.s), Interval: p.c.Interval}
		if a == SendLeave {
			adv.Priority = 0
		}
		for _, q := range w.peers {
			if q != p && !p.cut && !p.mute && !q.cut {
				w.queue = append(w.queue, func() { w.step(q, Event{Kind: Heard, From: p.c.Source, Advert: adv}) })
			}
		}
	case Acquire:
		e := Event{Kind: Denied}
		if w.holder == nil || w.holder == p || !w.now.Before(w.until) {
			w.holder, w.until = p, w.now.Add(500*time.Millisecond)
			e = Event{Kind: Granted, Until: w.until}
		}
		w.queue = append(w.queue, func() { w.step(p, e) })
	case Release:
		if w.holder == p {
			w.holder = nil
		}
	}
}

// run lets time pass in milliseconds.
func (w *world) run(d time.Duration) {
	for end := w.now.Add(d); w.now.Before(end); w.now = w.now.Add(time.Millisecond) {
		for _, p := range w.peers {
			if !p.s.Wake.IsZero() && !w.now.Before(p.s.Wake) {
				w.step(p, Event{Kind: Tick})
			}
		}
		for len(w.queue) > 0 {
			q := w.queue
			w.queue = nil
			for _, f := range q {
				f()
			}
		}
	}
}

// A holder that was cut from its peers, but not from its visitors, never let
// go: they must find it again after the other one has.
func TestVisitorsFindTheHolderThatStays(t *testing.T) {
	for _, heals := range []string{"both ways", "one way"} {
		for after := range 100 {
			w := &world{now: epoch}
			for i, priority := range []uint8{200, 100} {
				w.peers = append(w.peers, &peer{c: Settings{Source: netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), Interval: 100 * time.Millisecond, Priority: priority}})
				w.step(w.peers[i], Event{Kind: LinkUp})
			}
			first := w.peers[0]
			w.run(time.Second)
			first.cut = true
			w.run(5*time.Second + time.Duration(after)*time.Millisecond)
			if w.cache != w.peers[1] || !first.holds {
				t.Fatal("the second node did not take over, or the first let go")
			}
			first.cut = false
			within := 200 * time.Millisecond
			if heals == "one way" {
				w.peers[1].mute, within = true, announceEvery
			}
			w.run(within)
			if w.peers[1].holds || w.cache != first {
				t.Fatalf("healed %s %d ms later: the second node holds: %v, visitors know the first: %v", heals, after, w.peers[1].holds, w.cache == first)
			}
		}
	}
}

func TestElection(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		fenced := rapid.Bool().Draw(t, "fenced")
		preempt := rapid.Bool().Draw(t, "preempt")
		w := &world{now: epoch, fence: t.Fatalf}
		for i := range rapid.IntRange(1, 4).Draw(t, "nodes") {
			w.peers = append(w.peers, &peer{c: Settings{
				Source: netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), Interval: 100 * time.Millisecond,
				Priority: uint8(rapid.IntRange(impaired+1, 254).Draw(t, "priority")), Preempt: preempt, Fenced: fenced,
			}})
			w.step(w.peers[i], Event{Kind: LinkUp})
		}
		for range rapid.IntRange(0, 12).Draw(t, "faults") {
			p := w.peers[rapid.IntRange(0, len(w.peers)-1).Draw(t, "who")]
			switch rapid.IntRange(0, 6).Draw(t, "what") {
			case 0:
				p.cut = !p.cut
			case 1:
				w.step(p, Event{Kind: LinkDown})
			case 2:
				w.step(p, Event{Kind: LinkUp})
			case 3:
				w.step(p, Event{Kind: Sick})
			case 4:
				w.step(p, Event{Kind: Well})
			case 5:
				p.dead = !p.dead
				w.step(p, Event{Kind: Tick}) // what a revived process does first
			case 6:
				w.step(p, Event{Kind: Fault})
			}
			w.run(time.Duration(rapid.IntRange(0, 800).Draw(t, "ms")) * time.Millisecond)
		}
		for _, p := range w.peers { // all heals
			p.cut, p.dead = false, false
			w.step(p, Event{Kind: LinkUp})
			w.step(p, Event{Kind: Well})
		}
		w.run(6 * time.Second)
		holders := slices.DeleteFunc(slices.Clone(w.peers), func(p *peer) bool { return !p.holds })
		if len(holders) != 1 || holders[0].s.Phase != Active {
			t.Fatalf("%d holders at the end", len(holders))
		}
		if preempt {
			for _, p := range w.peers {
				if p.c.Priority > holders[0].c.Priority {
					t.Fatalf("priority %d holds before %d", holders[0].c.Priority, p.c.Priority)
				}
			}
		}
		// Nobody takes turns without cause.
		at := holders[0].s
		w.run(2 * time.Second)
		if !holders[0].holds || holders[0].s.Phase != at.Phase {
			t.Fatal("the holder changed without cause")
		}
		// A planned stop leaves no moment without a holder, unless a lease must move.
		if len(w.peers) > 1 {
			w.step(holders[0], Event{Kind: Stop})
			for range 1000 {
				w.run(time.Millisecond)
				if n := slices.IndexFunc(w.peers, func(p *peer) bool { return p.holds }); n < 0 && !fenced {
					t.Fatal("nobody held during a planned handover")
				}
			}
			if holders[0].s.Phase != Stopped || holders[0].holds {
				t.Fatalf("stopped node is %v, holds %v", holders[0].s.Phase, holders[0].holds)
			}
		}
	})
}

func TestSickHolderYields(t *testing.T) {
	for _, preempt := range []bool{true, false} {
		w := &world{now: epoch}
		for i := range 2 {
			w.peers = append(w.peers, &peer{c: Settings{
				Source: netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), Interval: 100 * time.Millisecond, Priority: uint8(200 - 50*i), Preempt: preempt,
			}})
			w.step(w.peers[i], Event{Kind: LinkUp})
		}
		w.run(time.Second)
		if !w.peers[0].holds {
			t.Fatal("the better one does not hold")
		}
		w.step(w.peers[0], Event{Kind: Sick})
		w.run(600 * time.Millisecond)
		if w.peers[0].holds || !w.peers[1].holds {
			t.Errorf("preempt %v: the sick node still holds", preempt)
		}
	}
}
