package command

import (
	"bytes"
	"fmt"
	"testing"

	"appliance/node/model"
	"appliance/raft/state"
)

func hashOf(t *testing.T, s *state.Snapshot) state.Hash {
	t.Helper()
	h, err := s.Hash(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// The view of a checkpoint is that of its entry, whatever transaction it is in.
func TestCheckpointSeesItsOwnEntry(t *testing.T) {
	set := func(key string) Command { return &KVTxn{Ops: []KVOp{{Verb: "set", Key: key}}} }
	log := []Command{set("a"), &RecordEvent{Event: model.Event{Kind: "x"}}, &Checkpoint{At: noon}, set("b"), audited(&Checkpoint{At: noon}), set("c")}
	run := func(batch bool) (out []state.Hash, keys []int) {
		m, store := raised(t, 2)
		m.OnCheckpoint(func(view *state.Snapshot) {
			out, keys = append(out, hashOf(t, view)), append(keys, state.KVs.Count(view))
		})
		all := func() {
			for i, c := range log {
				raw, err := Encode(c)
				if err != nil {
					t.Fatal(err)
				}
				m.Apply(uint64(10+i), 1, raw)
			}
		}
		if batch {
			m.Batch(uint64(9+len(log)), all)
		} else {
			all()
		}
		return append(out, hashOf(t, store.Snapshot())), keys
	}
	one, _ := run(false)
	many, keys := run(true)
	if fmt.Sprint(keys) != "[1 2]" || many[0].Index != 12 || many[1].Index != 14 {
		t.Errorf("saw %v keys at %d and %d", keys, many[0].Index, many[1].Index)
	}
	for i := range one {
		if one[i].Sum != many[i].Sum || !one[i].Comparable(many[i]) {
			t.Errorf("hash %d: %v", i, one[i].Differences(many[i]))
		}
	}
	if one[0].Sum == one[1].Sum {
		t.Error("two states have one hash")
	}
}

// A replica that begins with a snapshot has the hashes of one that has applied everything.
func TestHashSurvivesASnapshot(t *testing.T) {
	m, store := raised(t, 2)
	apply(t, m, 10, audited(&PutEnvironment{Environment: model.Environment{Name: "<é>", Selector: map[string]string{}}}))
	apply(t, m, 11, &KVTxn{Ops: []KVOp{{Verb: "set", Key: "a", Value: []byte{}}, {Verb: "set", Key: "b"}}})
	apply(t, m, 12, &KVTxn{Ops: []KVOp{{Verb: "delete", Key: "b"}}})
	apply(t, m, 13, &RecordEvent{Event: model.Event{Kind: "x", At: noon.Local(), Fields: map[string]string{}}})
	var b bytes.Buffer
	if err := store.Snapshot().Write(&b); err != nil {
		t.Fatal(err)
	}
	other := state.New()
	if err := other.Restore(&b); err != nil {
		t.Fatal(err)
	}
	apply(t, m, 14, &SetNodeDrain{Node: "n1", Drain: true, At: noon})
	apply(t, NewMachine(other), 14, &SetNodeDrain{Node: "n1", Drain: true, At: noon})
	x, y := hashOf(t, store.Snapshot()), hashOf(t, other.Snapshot())
	if x.Sum != y.Sum {
		t.Errorf("differ in %v", x.Differences(y))
	}
}

func TestCheckpointNotesWhoDiffers(t *testing.T) {
	m, store := raised(t, 2)
	found := []model.Divergence{{Node: "n2", Name: "n2", Tables: []string{"kv"}, Index: 9}}
	events := func() int { return state.Events.Count(store.Snapshot()) }
	before := events()
	for i, c := range []struct {
		found  []model.Divergence
		events int // so far
	}{{nil, 0}, {found, 1}, {found, 1}, {nil, 2}} {
		apply(t, m, uint64(10+i), &Checkpoint{At: noon, Diverged: c.found})
		for cl := range state.Clusters.All(store.Snapshot()) {
			if len(cl.Diverged) != len(c.found) || events()-before != c.events {
				t.Errorf("step %d: %v, %d events", i, cl.Diverged, events()-before)
			}
		}
	}
}
