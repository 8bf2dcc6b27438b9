package vip

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"appliance/node/replay"
)

// Any events at any times, in their order and not: the machine is total.
func TestStepReplaysExactly(t *testing.T) {
	replay.Exactly(t, func(r *rand.Rand, say replay.Say) {
		addr := func() netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(4))}) }
		c := Settings{Source: addr(), Priority: uint8(11 + r.IntN(245)), Interval: 100 * time.Millisecond, Preempt: r.IntN(2) == 0, Fenced: r.IntN(2) == 0}
		now, s := epoch, State{}
		for range 800 {
			e := Event{Kind: Kind(r.IntN(int(Fault) + 1)), From: addr(), Advert: Advert{VRID: 1, Priority: uint8(r.IntN(256)), Interval: c.Interval}}
			switch r.IntN(3) {
			case 0:
				e.Kind = Tick
				now = s.Wake
			case 1:
				now = now.Add(time.Duration(r.IntN(int(time.Second))))
			}
			if e.Kind == Granted {
				e.Until = now.Add(time.Duration(r.IntN(int(2 * time.Second))))
			}
			if r.IntN(500) == 0 {
				e.Kind, s = LinkUp, State{}
			}
			var acts []Action
			s, acts = Step(c, s, e, now)
			say(fmt.Sprintf("%v: %+v, do %v", e.Kind, s, acts))
		}
	})
}
