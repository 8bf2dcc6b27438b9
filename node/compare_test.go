package node

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
)

// replicas are nodes that apply one log, without a network.
type replicas struct {
	t     *testing.T
	index uint64
	nodes map[string]*replica
}

type replica struct {
	store   *state.Store
	machine *command.Machine
	hashes  *stateHashes
}

func newReplicas(t *testing.T) *replicas {
	r := &replicas{t: t, nodes: map[string]*replica{}}
	for _, id := range []string{"m1", "m2", "m3", "a1"} {
		store := state.New()
		one := &replica{store, command.NewMachine(store), newStateHashes(quiet())}
		one.machine.OnCheckpoint(one.hashes.checkpoint)
		r.nodes[id] = one
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() { defer close(ended); one.hashes.Run(ctx) }()
		t.Cleanup(func() { cancel(); <-ended })
	}
	r.do(&command.InitCluster{Cluster: model.Cluster{ID: "c1", Level: command.Speaks}})
	for id := range r.nodes {
		role := model.RoleMaster
		if id == "a1" {
			role = model.RoleAgent
		}
		r.do(&command.RegisterNode{Node: model.Node{ID: id, Name: id, Role: role, Addr: id, Status: model.NodeReady, Level: command.Speaks}})
	}
	r.do(&command.KVTxn{Ops: []command.KVOp{{Verb: "set", Key: "a"}, {Verb: "set", Key: "b"}}})
	return r
}

func (r *replicas) do(c command.Command) {
	r.t.Helper()
	if _, err := command.Do(r.t.Context(), r, c); err != nil {
		r.t.Fatal(err)
	}
}

// Propose implements command.Proposer.
func (r *replicas) Propose(_ context.Context, c command.Command) (command.Result, error) {
	raw, err := command.Encode(c)
	if err != nil {
		return command.Result{}, err
	}
	r.index++
	var out any
	for _, one := range r.nodes {
		out = one.machine.Apply(r.index, 1, raw)
	}
	res, ok := out.(command.Result)
	if !ok {
		return res, fmt.Errorf("%v", out)
	}
	return res, nil
}

// RoundTrip takes a question to the node whose address is its id.
func (r *replicas) RoundTrip(req *http.Request) (*http.Response, error) {
	one := r.nodes[req.URL.Hostname()]
	if one == nil {
		return nil, fmt.Errorf("no route to %s", req.URL.Host)
	}
	w := httptest.NewRecorder()
	one.hashes.ServeHTTP(w, req)
	return w.Result(), nil
}

// compare has a node compare and returns who differs, as "node: tables", and what it logged.
func (r *replicas) compare(self string) (found []string, log string) {
	r.t.Helper()
	var b bytes.Buffer
	c := &comparer{self: self, store: r.nodes[self].store, proposer: r, hashes: r.nodes[self].hashes,
		client: &http.Client{Transport: r}, log: slog.New(slog.NewTextHandler(&b, nil))}
	out, err := c.compare(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	if out.Nodes != len(r.nodes) {
		r.t.Errorf("%d nodes answered", out.Nodes)
	}
	for _, d := range out.Diverged {
		found = append(found, d.Name+": "+strings.Join(d.Tables, " "))
	}
	return found, b.String()
}

// corrupt changes what one replica has, behind the log's back.
func (r *replicas) corrupt(id string) {
	store := r.nodes[id].store
	tx := store.Begin()
	row := *state.KVs.Get(&tx.Snapshot, "a")
	row.Value = []byte("another value")
	state.KVs.Put(tx, row.ModifyIndex, &row)
	tx.Commit(store.Index())
}

func TestCorruptedReplicaIsFound(t *testing.T) {
	for _, c := range []struct{ name, who, asks string }{
		{"another master", "m2", "m1"},
		{"the master that compares", "m1", "m1"},
		{"an agent", "a1", "m3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newReplicas(t)
			if found, log := r.compare(c.asks); found != nil || log != "" {
				t.Fatalf("found %v before anything was wrong: %s", found, log)
			}
			r.corrupt(c.who)
			found, log := r.compare(c.asks)
			if !slices.Equal(found, []string{c.who + ": kv"}) || !strings.Contains(log, "level=ERROR") {
				t.Fatalf("found %v, logged %s", found, log)
			}
			for id, one := range r.nodes { // everybody knows
				if w := divergenceFindings(one.store.Snapshot()); len(w) != 1 || w[0].Node != c.who {
					t.Errorf("%s warns of %v", id, w)
				}
			}
			if !slices.ContainsFunc(eventsOf(r.nodes["m3"].store), func(text string) bool { return strings.Contains(text, "another state") }) {
				t.Error("no event tells of it")
			}
			r.heal(c.who)
			if found, _ := r.compare(c.asks); found != nil {
				t.Errorf("found %v after it was healed", found)
			}
			if w := divergenceFindings(r.nodes["m3"].store.Snapshot()); w != nil {
				t.Errorf("still warns of %v", w)
			}
		})
	}
}

// heal gives a replica the state of another one.
func (r *replicas) heal(id string) {
	from := "m2"
	if id == from {
		from = "m3"
	}
	in, out := io.Pipe()
	go func() { out.CloseWithError(r.nodes[from].store.Snapshot().Write(out)) }()
	if err := r.nodes[id].store.Restore(in); err != nil {
		r.t.Fatal(err)
	}
}

func eventsOf(s *state.Store) (out []string) {
	for e := range state.Events.All(s.Snapshot()) {
		out = append(out, e.Text)
	}
	return out
}

func TestJudge(t *testing.T) {
	snap := newReplicas(t).nodes["m1"].store.Snapshot()
	h := func(sum string) state.Hash {
		return state.Hash{Form: 1, Level: 2, Index: 9, Sum: sum, Tables: map[string]string{"kv": sum}}
	}
	other := h("y")
	other.Form = 2
	for _, c := range []struct {
		name   string
		hashes map[string]state.Hash // m1 compares
		want   string
	}{
		{"all alike", map[string]state.Hash{"m1": h("x"), "m2": h("x"), "m3": h("x"), "a1": h("x")}, ""},
		{"alone", map[string]state.Hash{"m1": h("x")}, ""},
		{"one of three", map[string]state.Hash{"m1": h("x"), "m2": h("y"), "m3": h("x")}, "m2"},
		{"itself", map[string]state.Hash{"m1": h("x"), "m2": h("y"), "m3": h("y")}, "m1"},
		{"an agent", map[string]state.Hash{"m1": h("x"), "m2": h("x"), "m3": h("x"), "a1": h("y")}, "a1"},
		{"agents have no vote", map[string]state.Hash{"m1": h("x"), "m2": h("x"), "m3": h("y"), "a1": h("y")}, "a1 m3"},
		{"one against one", map[string]state.Hash{"m1": h("x"), "m2": h("y")}, "m2"},
		{"all different", map[string]state.Hash{"m1": h("x"), "m2": h("y"), "m3": h("z")}, "m2 m3"},
		{"of another form", map[string]state.Hash{"m1": h("x"), "m2": other, "m3": h("x")}, ""},
		{"removed meanwhile", map[string]state.Hash{"m1": h("x"), "gone": h("y")}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, d := range judge(snap, "m1", c.hashes, nil) {
				got = append(got, d.Node)
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("blamed %v, want %s", got, c.want)
			}
		})
	}
}
