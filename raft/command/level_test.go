package command

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"appliance/node/model"
	"appliance/raft/archive"
	"appliance/raft/state"
)

// raised gives a machine of a cluster with a level and nodes n1, n2.
func raised(t *testing.T, level int) (*Machine, *state.Store) {
	t.Helper()
	store := state.New()
	m := NewMachine(store)
	apply(t, m, 1, &InitCluster{Cluster: model.Cluster{ID: "c1", Name: "house", Level: level}})
	for i, id := range []string{"n1", "n2"} {
		n := model.Node{ID: id, Name: id, Status: model.NodeReady, Level: level}
		if res := apply(t, m, uint64(2+i), &RegisterNode{Node: n, At: noon}); res.Err != nil {
			t.Fatal(res.Err)
		}
	}
	return m, store
}

func TestLevelOfACommand(t *testing.T) {
	nested, err := NewBatch(&SetLeader{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		c    Command
		want int
	}{
		{"of old", &KVTxn{}, 1},
		{"the way up", &RaiseLevel{Level: 2}, 1},
		{"the way up on somebody's behalf", audited(&RaiseLevel{Level: 2}), 1},
		{"a batch of old ones", nested, 1},
		{"empty on somebody's behalf", &Audited{}, 1},
	} {
		if got := Level(c.c); got != c.want {
			t.Errorf("%s: level %d, want %d", c.name, got, c.want)
		}
	}
	for k := range types {
		if l := k.level(); l > Speaks {
			t.Errorf("kind %d has level %d, above what this binary speaks", k, l)
		}
	}
}

func TestMarkedFieldsNeedTheirLevel(t *testing.T) {
	type inner struct {
		Old string
		New int `level:"4"`
	}
	type row struct {
		A    *inner
		B    []inner
		C    map[string]inner
		Next *row
		Flag bool `level:"2"`
	}
	for _, c := range []struct {
		name string
		v    any
		want int
	}{
		{"nothing set", &row{}, 1},
		{"unmarked", &row{A: &inner{Old: "x"}}, 1},
		{"flag", &row{Flag: true}, 2},
		{"behind a pointer", &row{A: &inner{New: 1}}, 4},
		{"in a list", &row{B: []inner{{}, {New: 1}}}, 4},
		{"in a map", &row{C: map[string]inner{"x": {New: 1}}}, 4},
		{"deep", &row{Next: &row{Next: &row{Flag: true}}}, 2},
		{"of no such type", &KVTxn{}, 1},
	} {
		if got := fieldLevel(c.v); got != c.want {
			t.Errorf("%s: level %d, want %d", c.name, got, c.want)
		}
	}
}

func TestRaiseLevel(t *testing.T) {
	both := []NodeLevel{{"n1", 2}, {"n2", 2}}
	for _, c := range []struct {
		name  string
		left  bool // n2 has left
		nodes []NodeLevel
		level int
		ok    bool
	}{
		{"all speak it", false, both, 2, true},
		{"one is older", false, []NodeLevel{{"n1", 2}, {"n2", 1}}, 2, false},
		{"one is not known", false, []NodeLevel{{"n1", 2}}, 2, false},
		{"the older one has left", true, []NodeLevel{{"n1", 2}}, 2, true},
		{"not higher", false, both, 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, store := raised(t, 0)
			if c.left {
				apply(t, m, 4, &SetNodeStatus{Node: "n2", Status: model.NodeLeft, At: noon})
			}
			res := apply(t, m, 5, &RaiseLevel{Level: c.level, Nodes: c.nodes, At: noon})
			snap := store.Snapshot()
			got, n1 := ClusterLevel(snap), state.Nodes.Get(snap, "n1").Level
			if c.ok != (res.Err == nil) || c.ok && (got != 2 || n1 != 2) || !c.ok && (got != 1 || n1 != 0) {
				t.Errorf("level %d, n1 %d, refusal %v", got, n1, res.Err)
			}
		})
	}
}

func TestOlderBinaryIsNotLetIn(t *testing.T) {
	m, store := raised(t, 2)
	for i, c := range []Command{
		&RegisterNode{Node: model.Node{ID: "n3", Name: "n3"}, At: noon},
		&UpdateNode{Node: model.Node{ID: "n2"}, At: noon},
	} {
		if res := apply(t, m, uint64(10+i), c); res.Err == nil || res.Err.Code != model.CodeConflict {
			t.Errorf("%T: %v", c, res.Err)
		}
	}
	if state.Nodes.Get(store.Snapshot(), "n2").Level != 2 {
		t.Error("the refused announcement was stored")
	}
}

// What this binary does not know stops it, wherever it is hidden, before anything is applied.
func TestHigherLevelStopsTheNode(t *testing.T) {
	raise := &RaiseLevel{Level: Speaks + 1, Nodes: []NodeLevel{{"n1", Speaks + 1}, {"n2", Speaks + 1}}, At: noon}
	strange := []byte{codecVersion, 0x7f, 0xff, '{', '}'}
	for _, c := range []struct {
		name string
		c    Command
	}{
		{"raised beyond", raise},
		{"raised beyond, on somebody's behalf", audited(raise)},
		{"unknown kind in a batch", &Batch{Commands: [][]byte{strange}}},
		{"unknown kind in a batch, on somebody's behalf", audited(&Batch{Commands: [][]byte{strange}})},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, store := raised(t, 2)
			raw, err := Encode(c.c)
			if err != nil {
				t.Fatal(err)
			}
			out := m.Apply(10, 1, raw)
			var stop interface{ Fatal() bool }
			if err, ok := out.(error); !ok || !errors.As(err, &stop) {
				t.Fatalf("got %v", out)
			}
			if store.Index() != 3 || ClusterLevel(store.Snapshot()) != 2 {
				t.Error("something was applied")
			}
		})
	}
}

// A field that this binary does not know stops it like an unknown kind.
func TestUnknownFieldStopsTheNode(t *testing.T) {
	for _, c := range []struct {
		name string
		c    Command
		old  string
		new  string
	}{
		{"of a command", &DeleteApp{App: "/x"}, `{"app"`, `{"strange":1,"app"`},
		{"of a row", &PutEnvironment{Environment: model.Environment{Name: "x"}}, `{"name"`, `{"strange":1,"name"`},
		{"of what somebody wants", audited(&DeleteApp{App: "/x"}), `{"app"`, `{"strange":1,"app"`},
		{"of who wants it", audited(&DeleteApp{App: "/x"}), `{"who"`, `{"strange":1,"who"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, store := raised(t, 2)
			raw, err := Encode(c.c)
			if err != nil {
				t.Fatal(err)
			}
			changed := bytes.Replace(raw, []byte(c.old), []byte(c.new), 1)
			if bytes.Equal(raw, changed) {
				t.Fatalf("no %s in %s", c.old, raw)
			}
			var newer *state.NewerError
			if err, ok := m.Apply(10, 1, changed).(error); !ok || !errors.As(err, &newer) || store.Index() != 3 {
				t.Fatalf("got %v at %d", err, store.Index())
			}
		})
	}
}

// A snapshot that this binary cannot read stops the node, a damaged one does not.
func TestNewerSnapshotIsFatal(t *testing.T) {
	m, _ := raised(t, 2)
	for text, want := range map[string]bool{
		fmt.Sprintf(`{"format":"appliance-state/%d","index":1,"tables":{},"rows":0}`, Speaks+1): true,
		"damage": false,
	} {
		err := m.Restore(strings.NewReader(text))
		var stop interface{ Fatal() bool }
		if err == nil || errors.As(err, &stop) != want {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// A file of a newer level is refused by every binary alike, not only by those that cannot read it.
func TestRestoreOfANewerLevelIsRefused(t *testing.T) {
	_, newer := raised(t, 2)
	var file bytes.Buffer
	if err := archive.Write(&file, newer.Snapshot(), archive.Header{Time: noon}); err != nil {
		t.Fatal(err)
	}
	m, store := raised(t, 0)
	apply(t, m, 10, &StageRestore{ID: "x", Data: file.Bytes()})
	if res := apply(t, m, 11, &EndRestore{ID: "x", Commit: true, At: noon}); res.Err == nil || res.Err.Code != model.CodeConflict {
		t.Fatalf("got %v", res.Err)
	}
	if ClusterLevel(store.Snapshot()) != 1 {
		t.Error("the level was replaced")
	}
}
