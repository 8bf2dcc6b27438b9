package sim

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anishathalye/porcupine"

	"appliance/node/model"
	"appliance/node/register"
	"appliance/raft/state"
)

// history is what clients saw. Safe for concurrent use.
type history struct {
	clock   atomic.Int64 // orders calls and returns
	refused atomic.Int64

	mu      sync.Mutex
	ops     []porcupine.Operation // on keys
	apps    []porcupine.Operation // on releases
	leases  []porcupine.Operation
	beliefs []belief
	owners  map[string]string // of tasks
	changes map[string]int    // of who is a master: upheavals, by name
	errs    []string

	did      map[effect]int // by faults
	faults   int
	worked   int           // of them that had an effect
	panics   int           // processes that could not store their term
	led      int           // times that a master began to lead
	noticed  time.Duration // until all knew of a death
	moves    int           // changes of the members of the log
	compared int           // states of machines at one index
}

// belief is a time in which a client thinks that it holds a lease, or a lock.
type belief struct {
	lease, holder string
	from, until   time.Time
}

func newHistory() *history { return &history{owners: map[string]string{}, changes: map[string]int{}} }

func (h *history) fail(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.errs) < 20 {
		h.errs = append(h.errs, fmt.Sprintf(format, args...))
	}
}

func (h *history) call() int64 { return h.clock.Add(1) }

func (h *history) kv(client int, in register.Input, call int64, out register.Output) {
	h.add(&h.ops, out.Known, porcupine.Operation{ClientId: client, Input: in, Call: call, Output: out})
}

func (h *history) release(client int, in releaseInput, call int64, out releaseOutput) {
	h.add(&h.apps, out.known, porcupine.Operation{ClientId: client, Input: in, Call: call, Output: out})
}

func (h *history) lease(client int, in leaseInput, call int64, out leaseOutput) {
	h.add(&h.leases, out.known, porcupine.Operation{ClientId: client, Input: in, Call: call, Output: out})
}

// add notes an operation that returns now, or, if its outcome is not known, may
// take effect for ever.
func (h *history) add(to *[]porcupine.Operation, known bool, o porcupine.Operation) {
	o.Return = h.clock.Add(1)
	if !known {
		o.Return = math.MaxInt64
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	*to = append(*to, o)
}

// held notes that a client learned now that it has a lease.
func (h *history) held(lease, holder string, until time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now := time.Now(); now.Before(until) {
		h.beliefs = append(h.beliefs, belief{lease, holder, now, until})
	}
}

// released ends what a client believes, before it says so.
func (h *history) released(lease, holder string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	for i := range h.beliefs {
		if b := &h.beliefs[i]; b.lease == lease && b.holder == holder && b.until.After(now) {
			b.until = now
		}
	}
}

// owner notes where a task was seen; it never moves.
func (h *history) owner(task, node string) {
	h.mu.Lock()
	old := h.owners[task]
	h.owners[task] = node
	h.mu.Unlock()
	if old != "" && old != node {
		h.fail("task %s is on %s and on %s", task, old, node)
	}
}

// inspect checks one view of the state: no node is over-committed, no port is given twice.
func (h *history) inspect(at string, snap *state.Snapshot) {
	for n := range state.Nodes.All(snap) {
		used, ports := model.Resources{}, map[int]bool{}
		for t := range state.Tasks.By(snap, "node", n.ID) {
			h.owner(t.ID, t.Node)
			if !t.Live() {
				continue
			}
			used = used.Add(t.Resources)
			for _, p := range t.Ports {
				if ports[p] {
					h.fail("%s sees port %d of %s given twice at index %d", at, p, n.ID, snap.Index())
				}
				ports[p] = true
			}
		}
		if !used.Fits(n.Capacity) {
			h.fail("%s sees %s with %v give %v at index %d", at, n.ID, n.Capacity, used, snap.Index())
		}
	}
}

// fault notes one that has ended: it counts if something of what it does has happened meanwhile.
func (h *history) fault(f fault, before, after map[effect]int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults++
	if sum(after, f.does) > sum(before, f.does) {
		h.worked++
	}
}

func (h *history) upheaval(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changes[name]++
}

// upheavals is how often a master was wiped, removed or away for long.
func (h *history) upheavals() (n int) {
	for _, u := range upheavals {
		n += h.changes[u.name]
	}
	return n
}

// locked is how often a client believed that it has a lock.
func (h *history) locked() (n int) {
	for _, b := range h.beliefs {
		if strings.HasPrefix(b.lease, lockPrefix) {
			n++
		}
	}
	return n
}

// extent is how much of everything a run had, and must have to mean anything.
type extent struct {
	what     string
	got, min int
}

func (h *history) extent() []extent {
	known, released, leased, locked := 0, 0, 0, h.locked()
	for _, o := range h.ops {
		if o.Output.(register.Output).Known {
			known++
		}
	}
	for _, o := range h.apps {
		if o.Output.(releaseOutput).known {
			released++
		}
	}
	for _, o := range h.leases {
		if o.Output.(leaseOutput).known {
			leased++
		}
	}
	return []extent{
		{"known operations on keys", known, 100}, // a third of all are on leases and locks
		{"without a known outcome", len(h.ops) - known, 0},
		{"refused", int(h.refused.Load()), 0},
		{"known operations on releases", released, 10},
		{"known operations on leases", leased, 40},
		{"leases", len(h.beliefs) - locked, 5},
		{"locks", locked, 1},
		{"tasks", len(h.owners), 20},
		{"faults with an effect", h.worked, 8},
		{"effects of faults of the network", sum(h.did, networkFaults), 50},
		{"kinds of them", kinds(h.did, networkFaults), 4},
		{"effects of faults of disks", sum(h.did, diskFaults), 2},
		{"kinds of them", kinds(h.did, diskFaults), 1},
		{"ends of processes", h.did[killed] + h.did[powerless], 2},
		{"changes of the leader", h.led - 1, 1},
		{"upheavals of the masters", h.upheavals(), 1},
		{"changes of the members", h.moves, 2}, // of three or more; one whose leader ends meanwhile is not counted
		{"comparisons of states", h.compared, 5},
	}
}

// count notes what the cluster itself counts. The journal reports to the history under its own lock, so that it is
// not asked under the one of the history.
func (h *history) count(c *cluster) {
	compared := c.journal.comparisons()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.led, h.moves, h.compared = int(c.terms.Load()), int(c.moves.Load()), compared
}

// enough reports whether the run means something already.
func (h *history) enough(c *cluster) bool {
	h.count(c)
	did := c.effects()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.did = did
	return !slices.ContainsFunc(h.extent(), func(x extent) bool { return x.got < x.min })
}

// judge returns everything that is wrong with the history.
func (h *history) judge() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	errs := h.errs
	for i, a := range h.beliefs {
		for _, b := range h.beliefs[:i] {
			if a.lease == b.lease && a.holder != b.holder && a.from.Before(b.until) && b.from.Before(a.until) {
				errs = append(errs, fmt.Sprintf("lease %s has two holders: %s from %v until %v, %s from %v until %v",
					a.lease, b.holder, at(b.from), at(b.until), a.holder, at(a.from), at(a.until)))
			}
		}
	}
	for _, x := range h.extent() {
		if x.got < x.min {
			errs = append(errs, fmt.Sprintf("the run is meaningless: %d %s", x.got, x.what))
		}
	}
	errs = append(errs, linearizable("keys", register.Model, h.ops)...)
	errs = append(errs, linearizable("releases", releases, h.apps)...)
	return append(errs, linearizable("leases", leaseModel, h.leases)...)
}

func linearizable(what string, model porcupine.Model, ops []porcupine.Operation) []string {
	switch porcupine.CheckOperationsTimeout(model, ops, time.Minute) {
	case porcupine.Illegal:
		return []string{"the history of the " + what + " is not linearizable: " + broken(model, ops)}
	case porcupine.Unknown:
		return []string{"the history of the " + what + " is too tangled to be judged"}
	}
	return nil
}

// broken shows the first part of a history that cannot be.
func broken(model porcupine.Model, ops []porcupine.Operation) string {
	for _, part := range model.Partition(ops) {
		if porcupine.CheckOperations(model, part) {
			continue
		}
		text := ""
		for _, o := range part {
			text += fmt.Sprintf("\n\t%d..%d client %d: %+v -> %+v", o.Call, o.Return, o.ClientId, o.Input, o.Output)
		}
		return text
	}
	return ""
}
