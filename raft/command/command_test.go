package command

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"appliance/node/model"
	"appliance/raft/state"

	"pgregory.net/rapid"
)

func apply(t testing.TB, m *Machine, index uint64, c Command) Result {
	t.Helper()
	raw, err := Encode(c)
	if err != nil {
		t.Fatal(err)
	}
	v := m.Apply(index, 1, raw)
	res, ok := v.(Result)
	if !ok {
		t.Fatalf("%T: %v", c, v)
	}
	return res
}

func TestEveryCommandSurvivesItsEncoding(t *testing.T) {
	for _, c := range all {
		want := reflect.New(reflect.TypeOf(c).Elem()).Interface().(Command)
		raw, err := Encode(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(raw)
		if err != nil {
			t.Fatal(err)
		}
		if reflect.TypeOf(got) != reflect.TypeOf(want) {
			t.Errorf("%T came back as %T", want, got)
		}
	}
}

func TestUnknownEntryStopsTheNodeAndChangesNothing(t *testing.T) {
	store := state.New()
	m := NewMachine(store)
	apply(t, m, 1, &PutEnvironment{Environment: model.Environment{Name: "test"}})
	for name, data := range map[string][]byte{"kind": {1, 0xff, 0xff, '{', '}'}, "codec": {9, 0, 1, '{', '}'}, "short": {1}} {
		v, ok := m.Apply(2, 1, data).(error)
		var f interface{ Fatal() bool }
		if !ok || !errors.As(v, &f) || !f.Fatal() {
			t.Errorf("%s: %v is not fatal", name, v)
		}
	}
	if got := store.Index(); got != 1 {
		t.Errorf("state moved to %d", got)
	}
}

func TestSnapshotRestoresTheSameState(t *testing.T) {
	a := state.New()
	m := NewMachine(a)
	index := uint64(0)
	do := func(c Command) { index++; apply(t, m, index, c) }
	do(&InitCluster{Cluster: model.Cluster{ID: "c"}, Environments: []model.Environment{{Name: "test"}}})
	do(node("n1", 4))
	do(&CreateRelease{Release: model.Release{App: "/test/web"}, Instances: 2, Deployment: model.Deployment{ID: "d"}})
	do(&CreateTasks{Tasks: []model.Task{{ID: "t1", App: "/test/web"}, {ID: "t2", App: "/test/web"}}})
	do(&Place{Placements: []model.Placement{{Task: "t1", Node: "n1", Ports: []int{31000}}}})
	do(&KVTxn{Ops: []KVOp{{Verb: "set", Key: "a", Value: []byte{0, 255}}}})

	var first, second bytes.Buffer
	if err := a.Snapshot().Write(&first); err != nil {
		t.Fatal(err)
	}
	b := state.New()
	if err := b.Restore(bytes.NewReader(first.Bytes())); err != nil {
		t.Fatal(err)
	}
	if err := b.Snapshot().Write(&second); err != nil {
		t.Fatal(err)
	}
	if first.String() != second.String() {
		t.Error("a restored state writes another snapshot")
	}
	cut := first.Bytes()[:first.Len()-10]
	before := b.Index()
	if err := b.Restore(bytes.NewReader(cut)); err == nil {
		t.Error("a snapshot that is cut short was accepted")
	}
	if b.Index() != before || state.Nodes.Get(b.Snapshot(), "n1") == nil {
		t.Error("a refused snapshot changed the state")
	}
}

func node(id string, cpus float64) *RegisterNode {
	return &RegisterNode{Node: model.Node{ID: id, Name: "name-" + id, Role: model.RoleAgent, Status: model.NodeReady, Capacity: model.Resources{CPUs: cpus, Memory: 1000}}}
}

func TestDuplicateNodeNameIsRefusedUnlessTheOldOneIsDown(t *testing.T) {
	store := state.New()
	m := NewMachine(store)
	apply(t, m, 1, node("a", 1))
	twin := node("b", 1)
	twin.Node.Name = "name-a"
	if res := apply(t, m, 2, twin); res.Err == nil || res.Err.Code != model.CodeConflict {
		t.Fatalf("got %v, want a conflict", res.Err)
	}
	apply(t, m, 3, &SetNodeStatus{Node: "a", Status: model.NodeDown})
	res := apply(t, m, 4, twin)
	var reg Registered
	if err := res.Decode(&reg); err != nil || reg.Replaced != "a" {
		t.Errorf("replaced %q, %v", reg.Replaced, err)
	}
}

func TestJoinTokenRules(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		token model.JoinToken
		use   string
		ok    bool
	}{
		"good":       {model.JoinToken{ID: "t", Role: model.RoleAgent, ExpiresAt: now.Add(time.Hour)}, "t", true},
		"unknown":    {model.JoinToken{ID: "t", Role: model.RoleAgent}, "u", false},
		"expired":    {model.JoinToken{ID: "t", Role: model.RoleAgent, ExpiresAt: now.Add(-time.Second)}, "t", false},
		"other role": {model.JoinToken{ID: "t", Role: model.RoleMaster}, "t", false},
		"used":       {model.JoinToken{ID: "t", Role: model.RoleAgent, SingleUse: true, UsedBy: "x"}, "t", false},
	} {
		t.Run(name, func(t *testing.T) {
			store := state.New()
			m := NewMachine(store)
			apply(t, m, 1, &PutJoinToken{Token: c.token})
			reg := node("a", 1)
			reg.Token, reg.At = c.use, now
			res := apply(t, m, 2, reg)
			if (res.Err == nil) != c.ok {
				t.Errorf("refusal %v", res.Err)
			}
			if joined := state.Nodes.Get(store.Snapshot(), "a") != nil; joined != c.ok {
				t.Errorf("joined %v", joined)
			}
		})
	}
}

func TestTaskStatesOnlyMoveForward(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		store := state.New()
		m := NewMachine(store)
		apply(t, m, 1, &PutEnvironment{Environment: model.Environment{Name: "test"}})
		apply(t, m, 2, node("n", 1))
		apply(t, m, 3, &CreateRelease{Release: model.Release{App: "/test/a"}, Deployment: model.Deployment{ID: "d"}})
		apply(t, m, 4, &CreateTasks{Tasks: []model.Task{{ID: "t", App: "/test/a"}}})
		apply(t, m, 5, &Place{Placements: []model.Placement{{Task: "t", Node: "n"}}})
		states := []model.TaskState{model.TaskStaging, model.TaskStarting, model.TaskRunning, model.TaskKilling, model.TaskFinished, model.TaskFailed, model.TaskKilled}
		rank, over := 0, model.TaskState("")
		for i := range rapid.IntRange(1, 30).Draw(rt, "reports") {
			st := model.TaskStatus{Task: "t", State: rapid.SampledFrom(states).Draw(rt, "state"), Seq: rapid.Uint64Range(0, 20).Draw(rt, "seq")}
			who := rapid.SampledFrom([]string{"n", "other"}).Draw(rt, "node")
			apply(t, m, uint64(6+i), &Observe{Node: who, Statuses: []model.TaskStatus{st}})
			got := state.Tasks.Get(store.Snapshot(), "t").Status.State
			if got.Rank() < rank {
				rt.Fatalf("went back to %s", got)
			}
			if over != "" && got != over {
				rt.Fatalf("%s became %s", over, got)
			}
			if rank = got.Rank(); got.Terminal() {
				over = got
			}
		}
	})
}

// No sequence of placements, launches and ends over-commits a node or gives a
// port twice.
func TestPlaceNeverOvercommits(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		store := state.New()
		m := NewMachine(store)
		index := uint64(0)
		do := func(c Command) { index++; apply(t, m, index, c) }
		do(&PutEnvironment{Environment: model.Environment{Name: "test"}})
		do(node("n1", 2))
		do(node("n2", 3))
		do(&CreateRelease{Release: model.Release{App: "/test/a"}, Deployment: model.Deployment{ID: "d"}})
		nodes := []string{"n1", "n2", "gone"}
		for i := range rapid.IntRange(1, 40).Draw(rt, "steps") {
			id := fmt.Sprintf("t%d", i)
			t := model.Task{ID: id, App: "/test/a", Resources: model.Resources{CPUs: rapid.Float64Range(0, 2).Draw(rt, "cpus")}}
			p := model.Placement{Task: id, Node: rapid.SampledFrom(nodes).Draw(rt, "node"), Ports: []int{31000 + rapid.IntRange(0, 5).Draw(rt, "port")}}
			switch rapid.IntRange(0, 3).Draw(rt, "what") {
			case 0:
				do(&Observe{Node: p.Node, Statuses: []model.TaskStatus{{Task: fmt.Sprintf("t%d", rapid.IntRange(0, i).Draw(rt, "old")), State: model.TaskFinished, Seq: 9}}})
			case 1:
				t.Node, t.Ports = p.Node, p.Ports
				do(&LaunchTasks{Tasks: []model.Task{t}})
			default:
				do(&CreateTasks{Tasks: []model.Task{t}})
				do(&Place{Placements: []model.Placement{p}})
			}
			verifyNodes(rt, store.Snapshot())
		}
	})
}

func verifyNodes(t *rapid.T, snap *state.Snapshot) {
	for n := range state.Nodes.All(snap) {
		used, ports := model.Resources{}, map[int]bool{}
		for task := range state.Tasks.By(snap, "node", n.ID) {
			if !task.Live() {
				continue
			}
			used = used.Add(task.Resources)
			for _, p := range task.Ports {
				if ports[p] {
					t.Fatalf("port %d of %s given twice", p, n.ID)
				}
				ports[p] = true
			}
		}
		if !used.Fits(n.Capacity) {
			t.Fatalf("%s has %v and gave %v", n.ID, n.Capacity, used)
		}
	}
}

func TestLeaseHasOneHolder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		store := state.New()
		m := NewMachine(store)
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		until := map[string]time.Time{}
		for i := range rapid.IntRange(1, 50).Draw(rt, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 4).Draw(rt, "pass")) * time.Second)
			who := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "who")
			if rapid.Bool().Draw(rt, "release") {
				apply(t, m, uint64(i+1), &ReleaseLease{Name: "vip", Holder: who})
				delete(until, who)
				continue
			}
			if apply(t, m, uint64(i+1), &TakeLease{Name: "vip", Holder: who, At: now, TTL: 3 * time.Second}).Err == nil {
				until[who] = now.Add(3 * time.Second)
			}
			held := 0
			for _, end := range until {
				if now.Before(end) {
					held++
				}
			}
			if held > 1 {
				rt.Fatalf("%d holders", held)
			}
		}
	})
}

func TestEventsAreBounded(t *testing.T) {
	store := state.New()
	m := NewMachine(store)
	for i := range uint64(maxEvents + 50) {
		apply(t, m, i+1, &RecordEvent{Event: model.Event{Kind: "x"}})
	}
	if n := state.Events.Count(store.Snapshot()); n != maxEvents {
		t.Errorf("%d events", n)
	}
}

func TestKVTransactionIsAllOrNothing(t *testing.T) {
	store := state.New()
	m := NewMachine(store)
	res := apply(t, m, 1, &KVTxn{Ops: []KVOp{{Verb: "set", Key: "a", Value: []byte("1")}, {Verb: "cas", Key: "b", Index: 7}}})
	var out KVTxnResult
	if err := res.Decode(&out); err != nil || len(out.Errors) != 1 || out.Errors[0].OpIndex != 1 {
		t.Fatalf("%+v %v", out, err)
	}
	if state.KVs.Get(store.Snapshot(), "a") != nil {
		t.Error("a failed transaction wrote")
	}
}

func TestWaitWakesOnTheTablesAsked(t *testing.T) {
	store := state.New()
	m := NewMachine(store)
	snap := store.Snapshot()
	woke := make(chan error, 1)
	go func() { woke <- snap.Wait(t.Context(), state.KVs.Name) }()
	apply(t, m, 1, &PutEnvironment{Environment: model.Environment{Name: "x"}})
	select {
	case <-woke:
		t.Fatal("woke for another table")
	case <-time.After(20 * time.Millisecond):
	}
	apply(t, m, 2, &KVTxn{Ops: []KVOp{{Verb: "set", Key: "k"}}})
	if err := <-woke; err != nil {
		t.Fatal(err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, c := range all {
		raw, err := Encode(reflect.New(reflect.TypeOf(c).Elem()).Interface().(Command))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		store := state.New()
		m := NewMachine(store)
		apply(t, m, 1, &PutEnvironment{Environment: model.Environment{Name: "test"}})
		first := m.Apply(2, 1, slices.Clone(data))
		other := state.New()
		n := NewMachine(other)
		apply(t, n, 1, &PutEnvironment{Environment: model.Environment{Name: "test"}})
		if second := n.Apply(2, 1, slices.Clone(data)); !reflect.DeepEqual(first, second) && fmt.Sprint(first) != fmt.Sprint(second) {
			t.Fatalf("two nodes disagree: %v, %v", first, second)
		}
	})
}
