package sim

import (
	"context"
	"fmt"
	"time"
)

const (
	// meeting is how long after all trouble everybody sees everybody alive. A node asks for those that it
	// misses every 5 s and compares all that it knows with somebody every 10 s.
	meeting = 20 * time.Second
	// noticing is how soon all nodes know of a death. It takes 2 s (TestDeathIsKnownInTwoSeconds). After trouble
	// nodes doubt themselves for a while (Lifeguard): a probe takes up to 4 s, a suspicion that nobody confirms 9 s,
	// and it may be 6 s until it is the dead one's turn.
	noticing = 20 * time.Second
)

// company checks gossip: that all nodes find each other again, and that all of them notice a death and a
// return. The machine that dies is started again.
func company(c *cluster, h *history, healed time.Time) bool {
	if why := c.see(time.Until(healed.Add(meeting)), nil); why != "" {
		h.fail("%v after all trouble has ended %s", meeting, why)
		return false
	}
	dead := c.machines[int(c.seed)%len(c.machines)]
	c.fault("end of " + dead.name + ", to be noticed")
	c.crash(dead, dead.running(), false)
	died := time.Now()
	why := c.see(noticing, dead)
	h.noticed = time.Since(died)
	c.restart(dead)
	if why != "" {
		h.fail("%v after the end of %s %s", noticing, dead.name, why)
		return false
	}
	if why := c.see(meeting, nil); why != "" {
		h.fail("%v after the return of %s %s", meeting, dead.name, why)
		return false
	}
	return true
}

// see waits until all running machines see all others alive but dead, and says what is not so in time.
func (c *cluster) see(patience time.Duration, dead *machine) (why string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		if why = c.opinions(dead); why == "" || pause(ctx, 100*time.Millisecond) != nil {
			return why
		}
	}
}

func (c *cluster) opinions(dead *machine) string {
	for _, a := range c.machines {
		p := a.running()
		if a == dead {
			continue
		}
		if p == nil {
			return a.name + " does not run"
		}
		alive := map[string]bool{}
		for _, m := range p.gossip.Members() {
			alive[m.ID] = m.Alive
		}
		for _, b := range c.machines {
			if alive[b.nodeID()] != (b != dead) {
				return fmt.Sprintf("%s sees %s alive: %v", a.name, b.name, alive[b.nodeID()])
			}
		}
	}
	return ""
}
