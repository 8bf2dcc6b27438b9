package lb

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"appliance/node/replay"
)

// Attempts fail and succeed: when a target is left out and tried again follows
// from them and from the time alone.
func TestEjectionReplaysExactly(t *testing.T) {
	replay.Exactly(t, func(r *rand.Rand, say replay.Say) {
		tg, now := &target{id: "a"}, time.Unix(1e9, 0)
		for range 2000 {
			now = now.Add(time.Duration(r.IntN(3000)) * time.Millisecond)
			asked, first, back := tg.available(now), false, false
			if asked || r.IntN(4) == 0 { // or under way since before
				if r.IntN(3) > 0 {
					first = tg.fault(now)
				} else {
					back = tg.healthy()
				}
			}
			say(fmt.Sprint(asked, first, back, " until ", tg.until.Load(), " after ", tg.fails))
		}
	})
}
