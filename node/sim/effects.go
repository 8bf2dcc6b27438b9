package sim

import (
	"maps"
	"sync"
)

// effect is something that a fault does. Faults are counted by it: one that does nothing proves nothing.
type effect string

const (
	severed   effect = "frames stopped by a broken link"
	halfway   effect = "frames stopped in one direction only"
	held      effect = "frames held by a pause"
	heldSteps effect = "steps of clients and loops held by a pause"
	lost      effect = "packets lost"
	doubled   effect = "packets doubled"
	overtaken effect = "packets overtaken"
	slowed    effect = "frames slowed"
	resets    effect = "connections reset"
	killed    effect = "processes killed"
	powerless effect = "power cuts"
	jumped    effect = "clocks set"
	astray    effect = "writes by a clock that is far off"

	noSpace     effect = "writes refused for lack of space"
	noFiles     effect = "files refused for lack of space"
	noValues    effect = "metadata refused for lack of space"
	slowWrites  effect = "slow writes"
	hungWrites  effect = "writes held by a hung disk"
	heldWrites  effect = "writes held by a pause"
	tornWrites  effect = "writes torn by a crash"
	lostWrites  effect = "writes lost by a crash"
	handedOver  effect = "leaderships handed over"
	snapshotted effect = "snapshots asked for"
)

// networkFaults and diskFaults belong to every run, machineFaults too; of all runs of a batch together no
// effect may be missing.
var (
	networkFaults = []effect{severed, halfway, held, lost, doubled, overtaken, slowed, resets}
	diskFaults    = []effect{noSpace, noFiles, noValues, slowWrites, hungWrites, heldWrites, tornWrites, lostWrites}
	machineFaults = []effect{killed, powerless, jumped, astray, heldSteps}
	// changes are no faults.
	changes = []effect{handedOver, snapshotted}
)

// effects counts. Safe for concurrent use.
type effects struct {
	mu sync.Mutex
	n  map[effect]int
}

func newEffects() *effects { return &effects{n: map[effect]int{}} }

func (e *effects) add(what effect) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.n[what]++
}

// effects returns all that faults have done so far.
func (c *cluster) effects() map[effect]int {
	c.did.mu.Lock()
	out := maps.Clone(c.did.n)
	c.did.mu.Unlock()
	for _, m := range c.masters() {
		d := m.disk.Effects()
		out[noSpace] += d.NoSpace
		out[noFiles] += d.NoFiles
		out[noValues] += d.NoValues
		out[slowWrites] += d.Slow
		out[hungWrites] += d.Hung
		out[heldWrites] += d.Paused
		out[tornWrites] += d.Torn
		out[lostWrites] += d.Lost
	}
	return out
}

// sum and kinds are how often, and how many of some effects there were.
func sum(n map[effect]int, of []effect) (s int) {
	for _, e := range of {
		s += n[e]
	}
	return s
}

func kinds(n map[effect]int, of []effect) (s int) {
	for _, e := range of {
		s += min(n[e], 1)
	}
	return s
}
