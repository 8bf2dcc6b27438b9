package sim

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// enough is how many seeds together must have had every effect of every fault.
const enough = 20

// batch is what some seeds together were. Safe for concurrent use.
type batch struct {
	mu                                sync.Mutex
	seeds, failed, violations         int
	operations, faults, worked, terms int
	panics                            int
	did                               map[effect]int
}

func (b *batch) add(h *history, r *report) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seeds++
	b.violations += len(r.Errors)
	b.failed += min(len(r.Errors), 1)
	b.operations += len(h.ops) + len(h.apps) + len(h.leases) + h.locked()
	b.faults, b.worked, b.terms, b.panics = b.faults+h.faults, b.worked+h.worked, b.terms+h.led-1, b.panics+h.panics
	for e, n := range h.did {
		b.did[e] += n
	}
}

// missing are the effects that no seed had: a fault that does nothing any more.
func (b *batch) missing() (none []string) {
	if b.seeds < enough {
		return nil
	}
	for _, e := range slices.Concat(networkFaults, diskFaults, machineFaults, changes) {
		if b.did[e] == 0 {
			none = append(none, string(e))
		}
	}
	return none
}

func (b *batch) String() string {
	return fmt.Sprintf("%d seeds: %d operations, %d faults of which %d had an effect, %d changes of the leader, %d violations in %d seeds",
		b.seeds, b.operations, b.faults, b.worked, b.terms, b.violations, b.failed)
}

// judge says what the seeds were; with SIM_SEEDS also where only stdout is shown.
func (b *batch) judge(t *testing.T) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range slices.Concat(networkFaults, diskFaults, machineFaults, changes) {
		t.Logf("%8d %s", b.did[e], e)
	}
	t.Logf("%8d ends for lack of space for the term", b.panics)
	if none := b.missing(); len(none) > 0 {
		t.Errorf("%d seeds are meaningless: no %s", b.seeds, strings.Join(none, ", no "))
	}
	if os.Getenv("SIM_SEEDS") != "" {
		fmt.Println("sim:", b)
	} else {
		t.Log(b)
	}
}

func TestBatchMissesAFaultThatDoesNothing(t *testing.T) {
	b := &batch{did: map[effect]int{}, seeds: enough}
	for _, e := range slices.Concat(networkFaults, diskFaults, machineFaults, changes) {
		b.did[e] = 1
	}
	if none := b.missing(); none != nil {
		t.Errorf("missing %v, want nothing", none)
	}
	b.did[tornWrites] = 0
	if none := b.missing(); len(none) != 1 || none[0] != string(tornWrites) {
		t.Errorf("missing %v, want %s", none, tornWrites)
	}
}
