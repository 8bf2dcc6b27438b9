package sim

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anishathalye/porcupine"

	"appliance/node/model"
	"appliance/raft/state"
)

// kvInput is an operation on one key. cas expects a value: values are unique, so they tell versions apart.
type kvInput struct{ op, key, expect, value string }

// kvOutput is what came of it; known is false if the client never learned that.
type kvOutput struct {
	known, done bool
	value       string // of get
}

// register is one key of the store. The state is its value, "" if there is none.
var register = porcupine.Model{
	Partition: func(ops []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		for _, o := range ops {
			k := o.Input.(kvInput).key
			byKey[k] = append(byKey[k], o)
		}
		var out [][]porcupine.Operation
		for _, part := range byKey {
			out = append(out, part)
		}
		return out
	},
	Init: func() any { return "" },
	Step: func(st, input, output any) (bool, any) {
		at, in, out := st.(string), input.(kvInput), output.(kvOutput)
		switch in.op {
		case "get":
			return out.value == at, at
		case "set", "delete":
			return !out.known || out.done, in.value
		default: // cas
			fits := at == in.expect
			if out.known && out.done != fits {
				return false, at
			}
			if fits {
				return true, in.value
			}
			return true, at
		}
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%v -> %v", input, output) },
}

// history is what clients saw. Safe for concurrent use.
type history struct {
	clock   atomic.Int64 // orders calls and returns
	refused atomic.Int64

	mu      sync.Mutex
	ops     []porcupine.Operation
	beliefs []belief
	owners  map[string]string // of tasks
	faults  map[string]int
	errs    []string
}

// belief is a time in which a client thinks that it holds a lease.
type belief struct {
	lease, holder string
	from, until   time.Time
}

func newHistory() *history { return &history{owners: map[string]string{}, faults: map[string]int{}} }

func (h *history) fail(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.errs) < 20 {
		h.errs = append(h.errs, fmt.Sprintf(format, args...))
	}
}

func (h *history) call() int64 { return h.clock.Add(1) }

func (h *history) kv(client int, in kvInput, call int64, out kvOutput) {
	end := h.clock.Add(1)
	if !out.known {
		end = math.MaxInt64
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, porcupine.Operation{ClientId: client, Input: in, Call: call, Output: out, Return: end})
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

const (
	minOps    = 150 // with a known outcome
	minKinds  = 5   // of faults
	minBelief = 10
)

// judge returns everything that is wrong with the history.
func (h *history) judge() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	errs := h.errs
	for i, a := range h.beliefs {
		for _, b := range h.beliefs[:i] {
			if a.lease == b.lease && a.holder != b.holder && a.from.Before(b.until) && b.from.Before(a.until) {
				errs = append(errs, fmt.Sprintf("lease %s has two holders: %s from %v until %v, %s from %v until %v",
					a.lease, b.holder, clock(b.from), clock(b.until), a.holder, clock(a.from), clock(a.until)))
			}
		}
	}
	known := 0
	for _, o := range h.ops {
		if o.Output.(kvOutput).known {
			known++
		}
	}
	if known < minOps || len(h.faults) < minKinds || len(h.beliefs) < minBelief {
		errs = append(errs, fmt.Sprintf("the run is meaningless: %d operations, %d kinds of faults, %d leases", known, len(h.faults), len(h.beliefs)))
	}
	switch porcupine.CheckOperationsTimeout(register, h.ops, time.Minute) {
	case porcupine.Illegal:
		errs = append(errs, "the history of the keys is not linearizable: "+h.broken())
	case porcupine.Unknown:
		errs = append(errs, "the history of the keys is too tangled to be judged")
	}
	return errs
}

// broken shows the first key whose history cannot be.
func (h *history) broken() string {
	for _, part := range register.Partition(h.ops) {
		if porcupine.CheckOperations(register, part) {
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
