package command

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"appliance/raft/state"
)

// Views stay as they were while the log goes on, in whatever batches it comes.
func TestCheckpointsOfReplicasAgree(t *testing.T) {
	const entries, every = 900, 150
	log := make([][]byte, entries)
	for i := range log {
		var c Command = audited(&KVTxn{Ops: []KVOp{{Verb: "set", Key: fmt.Sprintf("rolling/%d", i%4000), Value: fmt.Append(nil, i)}}})
		if i%every == every-1 {
			c = &Checkpoint{At: noon}
		}
		raw, err := Encode(c)
		if err != nil {
			t.Fatal(err)
		}
		log[i] = raw
	}
	run := func(seed uint64, concurrent bool) map[uint64]state.Hash {
		random := rand.New(rand.NewPCG(seed, 0))
		m, _ := raised(t, 2)
		var mu sync.Mutex
		var wg sync.WaitGroup
		out := map[uint64]state.Hash{}
		m.OnCheckpoint(func(view *state.Snapshot) {
			note := func() {
				h := hashOf(t, view)
				mu.Lock()
				defer mu.Unlock()
				out[h.Index] = h
			}
			if concurrent {
				wg.Go(note)
				return
			}
			note()
		})
		for i := 0; i < len(log); {
			n := min(1+random.IntN(40), len(log)-i)
			m.Batch(uint64(10+i+n-1), func() {
				for range n {
					m.Apply(uint64(10+i), 1, log[i])
					i++
				}
			})
		}
		wg.Wait()
		return out
	}
	want := run(1, false)
	for seed := range uint64(4) {
		for index, h := range run(seed, seed > 0) {
			if h.Sum != want[index].Sum {
				t.Errorf("run %d, index %d: %v", seed, index, h.Differences(want[index]))
			}
		}
	}
}
