package command

import (
	"testing"
	"time"

	"appliance/node/model"
	"appliance/raft/state"
)

func kv(t *testing.T, m *Machine, index uint64, at time.Time, op KVOp) KVTxnResult {
	t.Helper()
	var out KVTxnResult
	if err := apply(t, m, index, &KVTxn{Ops: []KVOp{op}, At: at}).Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestKVLockDelay(t *testing.T) {
	store := state.New()
	m := NewMachine(store)
	now := time.Unix(1000, 0)
	for i, id := range []string{"s1", "s2"} {
		apply(t, m, uint64(i+1), &PutSession{Session: model.Session{ID: id, LockDelay: 10 * time.Second}})
	}
	if out := kv(t, m, 3, now, KVOp{Verb: "lock", Key: "k", Session: "s1"}); len(out.Errors) != 0 {
		t.Fatal(out.Errors)
	}
	if out := kv(t, m, 4, now, KVOp{Verb: "lock", Key: "k", Session: "s2"}); len(out.Errors) != 1 {
		t.Error("a held lock was given away")
	}
	s1 := state.Sessions.Get(store.Snapshot(), "s1")
	apply(t, m, 5, &DestroySession{ID: "s1", At: now, IfModified: s1.ModifyIndex + 1})
	if state.Sessions.Get(store.Snapshot(), "s1") == nil {
		t.Fatal("a session that changed meanwhile was destroyed")
	}
	apply(t, m, 6, &DestroySession{ID: "s1", At: now, IfModified: s1.ModifyIndex})
	if out := kv(t, m, 7, now.Add(9*time.Second), KVOp{Verb: "lock", Key: "k", Session: "s2"}); len(out.Errors) != 1 {
		t.Error("the lock was given within the delay")
	}
	if out := kv(t, m, 8, now.Add(10*time.Second), KVOp{Verb: "lock", Key: "k", Session: "s2"}); len(out.Errors) != 0 {
		t.Errorf("after the delay: %v", out.Errors)
	}
	// A release on purpose leaves no delay.
	kv(t, m, 9, now, KVOp{Verb: "unlock", Key: "k", Session: "s2"})
	if row := state.KVs.Get(store.Snapshot(), "k"); row.Session != "" || row.LockIndex != 2 || !row.DelayUntil.IsZero() {
		t.Errorf("row = %+v", row)
	}
	if out := kv(t, m, 10, now, KVOp{Verb: "unlock", Key: "k", Session: "s2"}); len(out.Errors) != 1 {
		t.Error("unlock without a lock was taken")
	}
}

func TestKVSetToTheSameKeepsItsIndex(t *testing.T) {
	store := state.New()
	m := NewMachine(store)
	set := KVOp{Verb: "set", Key: "k", Value: []byte("v"), Flags: 1}
	kv(t, m, 1, time.Time{}, set)
	out := kv(t, m, 2, time.Time{}, set)
	if got := state.KVs.Index(store.Snapshot()); got != 1 {
		t.Errorf("table index %d", got)
	}
	if len(out.Results) != 1 || out.Results[0].ModifyIndex != 1 {
		t.Errorf("results = %+v", out.Results)
	}
}

func TestKVRead(t *testing.T) {
	store := state.New()
	m := NewMachine(store)
	kv(t, m, 1, time.Time{}, KVOp{Verb: "set", Key: "a/b", Value: []byte("v")})
	read := &KVTxn{Ops: []KVOp{{Verb: "get", Key: "a/b"}, {Verb: "get-tree", Key: "a/"}, {Verb: "check-not-exists", Key: "x"}}}
	if !read.ReadOnly() || (&KVTxn{Ops: []KVOp{{Verb: "set"}}}).ReadOnly() {
		t.Error("ReadOnly is wrong")
	}
	if out := read.Read(store.Snapshot()); len(out.Results) != 2 || string(out.Results[1].Value) != "v" {
		t.Errorf("out = %+v", out)
	}
}

// What a writing transaction reads is not remembered for retries: 65,536 such answers would fill the memory of
// every node, and its snapshots.
func TestLongAnswersAreNotKept(t *testing.T) {
	store := state.New()
	m := NewMachine(store)
	big := make([]byte, 300<<10)
	ops := []KVOp{{Verb: "set", Key: "a", Value: big}, {Verb: "get", Key: "a"}}
	whole := apply(t, m, 1, &KVTxn{Ops: ops})
	var out KVTxnResult
	if err := whole.Decode(&out); err != nil || len(out.Results) != 2 || len(out.Results[1].Value) != len(big) {
		t.Fatalf("the answer itself: %v", err)
	}
	kept := whole.Brief().(Result)
	raw, err := m.EncodeResult(kept)
	if err != nil || len(raw) > maxKept || kept.Err == nil || kept.Index != 1 {
		t.Fatalf("%d bytes are kept: %+v %v", len(raw), kept, err)
	}
	if back, err := m.DecodeResult(raw); err != nil || !back.(Result).Gone() {
		t.Errorf("from a snapshot it is %+v: %v", back, err)
	}
	short := apply(t, m, 2, &KVTxn{Ops: ops[:1]})
	if brief := short.Brief(); brief != nil || short.Gone() {
		t.Errorf("the answer of a write is not kept, but %+v", brief)
	}
}
