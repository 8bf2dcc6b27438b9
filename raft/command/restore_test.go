package command

import (
	"bytes"
	"context"
	"slices"
	"testing"
	"time"

	"appliance/node/model"
	"appliance/raft/archive"
	"appliance/raft/state"
)

// founded is a cluster with an app whose task runs.
func founded(t testing.TB) (*state.Store, func(Command) Result) {
	t.Helper()
	store := state.New()
	m := NewMachine(store)
	index := uint64(0)
	do := func(c Command) Result { index++; return apply(t, m, index, c) }
	do(&InitCluster{Cluster: model.Cluster{ID: "c", Name: "house"}, Environments: []model.Environment{{Name: "test"}}})
	do(node("n1", 4))
	do(&CreateRelease{Release: model.Release{App: "/test/web"}, Instances: 1, Deployment: model.Deployment{ID: "d"}})
	do(&CreateTasks{Tasks: []model.Task{{ID: "t1", App: "/test/web"}, {ID: "t2", App: "/test/web"}}})
	do(&KVTxn{Ops: []KVOp{{Verb: "set", Key: "a", Value: []byte("old")}, {Verb: "set", Key: "b", Value: []byte("gone")}}})
	return store, do
}

func save(t testing.TB, s *state.Store) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := archive.Write(&b, s.Snapshot(), archive.Header{Time: noon}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func stage(do func(Command) Result, id string, file []byte, size int) {
	for n := 0; len(file) > 0; n++ {
		part := file[:min(size, len(file))]
		file = file[len(part):]
		do(&StageRestore{ID: id, N: n, Data: part})
	}
}

func TestRestoreReplacesTheState(t *testing.T) {
	store, do := founded(t)
	file := save(t, store)
	do(&KVTxn{Ops: []KVOp{{Verb: "set", Key: "a", Value: []byte("new")}, {Verb: "delete", Key: "b"}, {Verb: "set", Key: "c"}}})
	do(&StopTasks{Tasks: []string{"t2"}, At: noon})
	do(&CreateTasks{Tasks: []model.Task{{ID: "t3", App: "/test/web"}}})
	do(&RegisterNode{Node: model.Node{ID: "n2", Name: "n2"}})
	do(audited(&PutEnvironment{Environment: model.Environment{Name: "late"}}))
	before := store.Snapshot()
	woken := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		woken <- before.Wait(ctx, state.KVs.Name)
	}()
	stage(do, "r1", file, 100)
	res := do(audited(&EndRestore{ID: "r1", Commit: true, At: noon}))
	if res.Err != nil {
		t.Fatal(res.Err)
	}
	if err := <-woken; err != nil {
		t.Errorf("who watched the state before was not woken: %v", err)
	}
	s := store.Snapshot()
	for key, want := range map[string]string{"a": "old", "b": "gone"} {
		if row := state.KVs.Get(s, key); row == nil || string(row.Value) != want || row.ModifyIndex != res.Index {
			t.Errorf("%s is %+v", key, row)
		}
	}
	if row := state.KVs.Get(s, "a"); row.CreateIndex >= res.Index {
		t.Errorf("the age of a row was lost: %+v", row)
	}
	for name, ok := range map[string]bool{
		"a key that was made since is gone":       state.KVs.Get(s, "c") == nil,
		"an environment that was made since too":  state.Environments.Get(s, "late") == nil,
		"a task that lives stays":                 state.Tasks.Get(s, "t1") != nil,
		"a task that has ended goes":              state.Tasks.Get(s, "t2") == nil,
		"a task that the file does not know goes": state.Tasks.Get(s, "t3") == nil,
		"a node that joined since stays":          state.Nodes.Get(s, "n2") != nil,
		"both audited changes stay on record":     state.Audit.Count(s) == 2,
		"the pieces are gone":                     state.Staged.Count(s) == 0,
		"history tells of it":                     state.Events.Last(s).Kind == "cluster",
		"the index goes on":                       s.Index() == res.Index && s.TableIndex(state.KVs.Name) == res.Index,
		"the app is there":                        state.Apps.Get(s, "/test/web") != nil,
	} {
		if !ok {
			t.Errorf("not so: %s", name)
		}
	}
}

// What is known of the members is about now: old voters or an old alarm would
// stand until somebody looks again.
func TestRestoreKeepsWhatIsKnownOfTheMembers(t *testing.T) {
	store, do := founded(t)
	do(&SetAutopilot{Voters: []string{"n1"}, At: noon})
	do(&Checkpoint{At: noon, Diverged: []model.Divergence{{Node: "n1", Name: "n1"}}})
	file := save(t, store)
	do(&SetAutopilot{Voters: []string{"n2", "n3"}, At: noon})
	do(&Checkpoint{At: noon})
	stage(do, "r", file, ChunkSize)
	if res := do(&EndRestore{ID: "r", Commit: true, At: noon}); res.Err != nil {
		t.Fatal(res.Err)
	}
	if c := state.Clusters.Get(store.Snapshot(), "c"); !slices.Equal(c.Voters, []string{"n2", "n3"}) || c.Diverged != nil {
		t.Errorf("voters %v, diverged %v", c.Voters, c.Diverged)
	}
}

func TestRestoreRefusesWhatIsNotWhole(t *testing.T) {
	store, do := founded(t)
	file := save(t, store)
	foreign := state.New()
	apply(t, NewMachine(foreign), 1, &InitCluster{Cluster: model.Cluster{ID: "other"}})
	cases := map[string][]byte{"foreign": save(t, foreign), "empty": nil, "short": file[:len(file)-1], "long": append(bytes.Clone(file), 0)}
	for i := 0; i < len(file); i += 1 + len(file)/50 {
		bad := bytes.Clone(file)
		bad[i] ^= 0x10
		cases["bit flipped at "+string(rune('0'+i%10))+"/"+time.Duration(i).String()] = bad
	}
	for name, bad := range cases {
		before := save(t, store)
		stage(do, "r", bad, ChunkSize)
		if res := do(&EndRestore{ID: "r", Commit: true, At: noon}); res.Err == nil {
			t.Fatalf("%s: accepted", name)
		}
		do(&EndRestore{ID: "r"})
		_, was, err := archive.Load(bytes.NewReader(before), int64(len(before)))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := rows(t, store), rows(t, was); got != want {
			t.Fatalf("%s: the state has changed:\n%s\n%s", name, want, got)
		}
	}
}

// rows is the state without the line that has the indexes.
func rows(t testing.TB, s *state.Store) string {
	t.Helper()
	var b bytes.Buffer
	if err := s.Snapshot().Write(&b); err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(b.Bytes(), []byte("\n"))
	return string(rest)
}

func TestRestoreIsOneAtATime(t *testing.T) {
	store, do := founded(t)
	file := save(t, store)
	do(&StageRestore{ID: "a", N: 0, Data: file[:10]})
	do(&StageRestore{ID: "b", N: 0, Data: file[:10]})
	if res := do(&StageRestore{ID: "a", N: 1, Data: file[10:]}); model.CodeOf(res.Err) != model.CodeConflict {
		t.Errorf("got %v", res.Err)
	}
	for _, c := range []*StageRestore{{}, {ID: "x", N: -1}, {ID: "x", N: maxChunks}, {ID: "x", Data: make([]byte, ChunkSize+1)}} {
		if res := do(c); model.CodeOf(res.Err) != model.CodeInvalid {
			t.Errorf("%d: got %v", c.N, res.Err)
		}
	}
}

// A node that starts from a snapshot in the middle of a restore ends up where
// the others are.
func TestRestoreGoesOnAfterASnapshot(t *testing.T) {
	store, do := founded(t)
	file := save(t, store)
	do(&KVTxn{Ops: []KVOp{{Verb: "set", Key: "a", Value: []byte("new")}}})
	stage(do, "r", file, 200)
	var b bytes.Buffer
	if err := store.Snapshot().Write(&b); err != nil {
		t.Fatal(err)
	}
	other := state.New()
	if err := other.Restore(&b); err != nil {
		t.Fatal(err)
	}
	end := &EndRestore{ID: "r", Commit: true, At: noon}
	res := do(end)
	apply(t, NewMachine(other), res.Index, end)
	if rows(t, store) != rows(t, other) {
		t.Error("two nodes differ")
	}
}
