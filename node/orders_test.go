package node

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"appliance/node/model"
	"appliance/node/needs"
	"appliance/node/wire"
	"appliance/raft"
)

// stopped is a master that does not run, with a log that has seen term, or no log if that is 0.
func stopped(t *testing.T, term uint64) *Node {
	t.Helper()
	dir := t.TempDir()
	n := &Node{cfg: Config{ID: "m1", Name: "m1", Role: model.RoleMaster, Advertise: "127.0.0.1", Masters: []string{"127.0.0.2:7600"}, Data: dir},
		log: quiet(), generation: generation{Generation: wire.Generation{Number: 1}}}
	if err := n.cfg.save(); err != nil {
		t.Fatal(err)
	}
	if err := raft.Renew(n.cfg.raft(nil, quiet()), term); err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *Node) logTerm(t *testing.T) uint64 {
	t.Helper()
	if _, err := os.Stat(n.cfg.dir("raft")); err != nil {
		return 0
	}
	at, err := raft.Inspect(n.cfg.raft(scratch(), quiet()))
	if err != nil {
		t.Fatal(err)
	}
	return at.Term
}

func (n *Node) kept(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob(n.cfg.dir(damagedDir) + "/*")
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestFailedRecoveryLeavesEverythingAsItWas(t *testing.T) {
	for _, c := range []struct {
		name     string
		term     uint64
		obstacle func(c Config) string // returns what to remove to be rid of it
		stays    bool                  // the order, to be carried out again
		copies   int
	}{
		{"no room for the copy", 4, func(c Config) string { return c.dir(damagedDir) }, false, 0},
		{"the generation cannot be written", 4, func(c Config) string { _, second, _ := c.twice(generationFile); return second }, true, 1},
		{"the log cannot be changed", 0, func(c Config) string { return "" }, false, 1}, // since it has no state
	} {
		t.Run(c.name, func(t *testing.T) {
			n := stopped(t, c.term)
			o := &order{Kind: orderRecover, At: time.Now().UTC(), Before: n.generation, Generation: generation{Generation: wire.Generation{Number: 2}}}
			if err := o.save(n.cfg); err != nil {
				t.Fatal(err)
			}
			way := c.obstacle(n.cfg)
			if way == n.cfg.dir(damagedDir) {
				os.WriteFile(way, nil, 0o600)
			} else if way != "" {
				os.MkdirAll(filepath.Join(way, "x"), 0o700)
			}
			var err error
			for range 3 { // starts
				err = n.carryOutOrder(t.Context())
			}
			if (err != nil) != c.stays {
				t.Fatal(err)
			}
			left, orderErr := readOrder(n.cfg)
			if orderErr != nil || (left != nil) != c.stays {
				t.Errorf("order %+v %v", left, orderErr)
			}
			if d, err := Ordered(n.cfg.Data, o.At); !c.stays && (err == nil || !strings.Contains(err.Error(), "was not begun")) {
				t.Errorf("told: %+v %v", d, err)
			}
			if len(n.kept(t)) != c.copies && way != n.cfg.dir(damagedDir) {
				t.Errorf("kept: %v", n.kept(t))
			}
			if got := n.logTerm(t); got != c.term || n.generation.Number != 1 {
				t.Errorf("the log is of term %d, the generation %d", got, n.generation.Number)
			}
			if way != "" {
				os.RemoveAll(way)
			}
			if g, err := readGeneration(n.cfg); err != nil || g.Number != 1 {
				t.Errorf("generation %+v %v", g, err)
			}
			if !c.stays {
				return
			}
			if err := n.carryOutOrder(t.Context()); err != nil {
				t.Fatal("without the obstacle:", err)
			}
			if g, err := readGeneration(n.cfg); err != nil || g.Number != 2 || len(n.kept(t)) != 1 {
				t.Errorf("generation %+v %v, kept %v", g, err, n.kept(t))
			}
		})
	}
}

// What an attempt that was cut short has begun is finished, never undone: other masters may have heard the new
// generation, and the log may know this master only.
func TestBegunRecoveryIsNotDropped(t *testing.T) {
	n := stopped(t, 0) // the log cannot be changed, since it has no state
	before := n.generation
	first := &order{Kind: orderRecover, At: time.Now().UTC(), Before: before, Generation: generation{Generation: wire.Generation{Number: 2}}}
	n.generation = first.Generation // as it is read at the start after the crash
	if err := errors.Join(n.generation.save(n.cfg), first.save(n.cfg)); err != nil {
		t.Fatal(err)
	}
	if err := n.carryOutOrder(t.Context()); err == nil || !strings.Contains(err.Error(), "not finished") {
		t.Error(err)
	}
	p := &RecoveryPlan{config: n.cfg, generation: generation{Generation: wire.Generation{Number: 3}}}
	if _, err := p.Order(); err != nil {
		t.Fatal(err)
	}
	o, err := readOrder(n.cfg)
	if err != nil || o.Before.Number != before.Number || o.Generation.Number != 3 {
		t.Fatalf("the second order: %+v %v", o, err)
	}
	if err := n.carryOutOrder(t.Context()); err == nil {
		t.Error("the second order is done")
	}
	if left, err := readOrder(n.cfg); left == nil || err != nil {
		t.Errorf("the second order is dropped: %v", err)
	}
	if g, err := readGeneration(n.cfg); err != nil || g.Number != 3 {
		t.Errorf("generation %+v %v", g, err)
	}
}

// A master whose log is set aside must not start as if it had never had one because the order is lost.
func TestOrderHasASecondCopy(t *testing.T) {
	n := stopped(t, 1)
	o := &order{Kind: orderResync, At: time.Now().UTC(), Masters: []string{"x"}, SetAside: true}
	path, second, _ := n.cfg.twice(orderFile)
	for name, harm := range map[string]func(){
		"lost":           func() { os.Remove(path) },
		"cut short":      func() { os.Truncate(path, 20) },
		"copy lost":      func() { os.Remove(second) },
		"copy damaged":   func() { os.Truncate(second, 20) },
		"without a copy": func() { os.Remove(second) }, // of an older version
	} {
		if err := o.save(n.cfg); err != nil {
			t.Fatal(err)
		}
		harm()
		for range 2 {
			if got, err := readOrder(n.cfg); err != nil || got == nil || !got.SetAside || !got.At.Equal(o.At) {
				t.Fatalf("%s: %+v %v", name, got, err)
			}
		}
	}
	os.Truncate(path, 20)
	os.Truncate(second, 20)
	if got, err := readOrder(n.cfg); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("both damaged: %+v %v", got, err)
	}
	if err := o.save(n.cfg); err != nil {
		t.Fatal(err)
	}
	raw, _ := os.ReadFile(second)
	if err := o.done(n.cfg, nil); err != nil {
		t.Fatal(err)
	}
	os.WriteFile(second, raw, 0o600) // an older version does not know it and leaves it
	if got, err := readOrder(n.cfg); got != nil || err != nil {
		t.Errorf("a done order comes back: %+v %v", got, err)
	}
	if _, err := os.Stat(second); err == nil {
		t.Error("its copy stays")
	}
}

// resynced is a master that waits to be taken in again.
func resynced(t *testing.T, n *Node) {
	t.Helper()
	if _, err := OrderResync(t.Context(), n.cfg.Data, "", nil, true); err != nil {
		t.Fatal(err)
	}
	o, err := readOrder(n.cfg)
	if err != nil || o == nil {
		t.Fatal(o, err)
	}
	if o.SetAside {
		return
	}
	if err := n.setAside(o); err != nil {
		t.Fatal(err)
	}
}

// undoneAndResynced has an undo that is cut short when it has put the log back.
func undoneAndResynced(t *testing.T, n *Node) {
	t.Helper()
	if _, err := OrderUndo(n.cfg.Data, ""); err != nil {
		t.Fatal(err)
	}
	o, err := readOrder(n.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := raft.PutBack(n.cfg.raft(nil, quiet()), o.Kept, o.place(n.cfg, "raft-before-undo")); err != nil {
		t.Fatal(err)
	}
	resynced(t, n)
	if n.logTerm(t) != 0 {
		t.Fatal("the log that was put back is not set aside again")
	}
}

func TestUndoPutsTheLogBack(t *testing.T) {
	for _, c := range []struct {
		name    string
		between func(t *testing.T, n *Node)
		want    uint64 // term of the log
		refused string
	}{
		{"it waits", func(*testing.T, *Node) {}, 4, ""},
		{"it was asked for twice", resynced, 4, ""},
		{"it was undone, and asked for again at once", undoneAndResynced, 4, ""},
		{"a new log was begun, of a later generation", func(t *testing.T, n *Node) {
			n.generation.Number = 2
			if err := n.generation.save(n.cfg); err != nil {
				t.Fatal(err)
			}
			if err := raft.Renew(n.cfg.raft(nil, quiet()), 9); err != nil {
				t.Fatal(err)
			}
		}, 4, ""},
		{"what was kept is gone", func(t *testing.T, n *Node) {
			for _, dir := range n.kept(t) {
				os.RemoveAll(dir)
			}
		}, 0, "no log was kept"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := stopped(t, 4)
			resynced(t, n)
			if n.logTerm(t) != 0 {
				t.Fatal("the log is not set aside")
			}
			c.between(t, n)
			at, err := OrderUndo(n.cfg.Data, "")
			if err != nil {
				t.Fatal(err)
			}
			if err := n.carryOutOrder(t.Context()); (err != nil) != (c.refused != "") {
				t.Fatal(err)
			}
			if d, err := Ordered(n.cfg.Data, at); d == nil || (err != nil) != (c.refused != "") || err != nil && !strings.Contains(err.Error(), c.refused) {
				t.Errorf("told: %+v %v", d, err)
			}
			if got := n.logTerm(t); got != c.want {
				t.Errorf("the log is of term %d, not %d", got, c.want)
			}
			if left, err := readOrder(n.cfg); err != nil || (left != nil) != (c.refused != "") || left != nil && (left.Kind != orderResync || !left.SetAside) {
				t.Errorf("order %+v %v", left, err)
			}
			if g, err := readGeneration(n.cfg); err != nil || g.Number != 1 {
				t.Errorf("generation %+v %v", g, err)
			}
			if c.refused != "" {
				return
			}
			if _, err := OrderUndo(n.cfg.Data, ""); model.CodeOf(err) != model.CodeConflict {
				t.Errorf("nothing to undo: %v", err)
			}
		})
	}
}

// Once it is a member again it may have voted with the new log, and the old one must never come back.
func TestUndoComesTooLate(t *testing.T) {
	n := stopped(t, 4)
	resynced(t, n)
	o, err := readOrder(n.cfg)
	if err != nil {
		t.Fatal(err)
	}
	at, err := OrderUndo(n.cfg.Data, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := raft.Renew(n.cfg.raft(nil, quiet()), 9); err != nil {
		t.Fatal(err)
	}
	if err := o.done(n.cfg, nil); err != errNewOrder { // it was just taken in
		t.Fatal(err)
	}
	if err := n.carryOutOrder(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := Ordered(n.cfg.Data, at); err != errTaken && model.CodeOf(err) != model.CodeConflict {
		t.Errorf("told: %v", err)
	}
	if got := n.logTerm(t); got != 9 {
		t.Errorf("the log is of term %d", got)
	}
}

func TestAgentTakesItsStateAnew(t *testing.T) {
	n := stopped(t, 1)
	n.cfg.Role = model.RoleAgent
	if err := n.cfg.save(); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(n.cfg.dir(feedDir), 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		at, err := OrderResync(t.Context(), n.cfg.Data, "", nil, true)
		if err != nil {
			t.Fatal(err)
		}
		if err := n.carryOutOrder(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d, err := Ordered(n.cfg.Data, at); d == nil || err != nil {
			t.Errorf("told: %+v %v", d, err)
		}
		if _, err := os.Stat(n.cfg.dir(feedDir)); err == nil || len(n.kept(t)) != 1 {
			t.Errorf("the state is still there, kept: %v", n.kept(t))
		}
	}
}

func TestTakers(t *testing.T) {
	servers := func(voters string) (out []raft.Server) {
		for _, id := range strings.Fields(voters) {
			out = append(out, raft.Server{ID: id, Voter: true})
		}
		return out
	}
	m := func(id, leader string, generation, last uint64, voters string) sight {
		return sight{ID: id, Name: id, Role: model.RoleMaster, Leader: leader, Generation: wire.Generation{Number: generation},
			Position: raft.Position{LastTerm: 1, Last: last, Servers: servers(voters)}}
	}
	agent := sight{ID: "a1", Role: model.RoleAgent, Leader: "m1"}
	const three = "m1 m2 m3"
	for _, c := range []struct {
		name string
		role model.Role // of m1, which asks
		all  []sight
		want string // refused with
	}{
		{"the others lead", model.RoleMaster, []sight{m("m2", "m2", 1, 9, three), m("m3", "m2", 1, 9, three)}, ""},
		{"this one leads, the others can", model.RoleMaster, []sight{m("m2", "m1", 1, 9, three), m("m3", "m1", 1, 9, three)}, ""},
		{"nobody answers", model.RoleMaster, nil, "no other master answers"},
		{"itself and an agent do", model.RoleMaster, []sight{m("m1", "m1", 1, 9, three), agent}, "no other master answers"},
		{"the leader needs this one", model.RoleMaster, []sight{m("m2", "m2", 1, 9, three)}, "no majority"},
		{"nobody leads", model.RoleMaster, []sight{m("m2", "", 1, 9, three), m("m3", "", 1, 9, three)}, "no leader"},
		{"they were recovered without it", model.RoleMaster, []sight{m("m2", "m2", 2, 5, "m2"), m("m3", "", 1, 9, three)}, ""},
		{"one of an older generation does not count", model.RoleMaster, []sight{m("m2", "m2", 2, 5, "m2 m3"), m("m3", "", 1, 9, three)}, "no majority"},
		{"a spare one does not count", model.RoleMaster, []sight{m("m2", "m2", 1, 9, three), m("m4", "m2", 1, 9, three)}, "no majority"},
		{"an agent asks", model.RoleAgent, []sight{m("m2", "m2", 1, 9, three)}, ""},
		{"an agent asks and nobody leads", model.RoleAgent, []sight{m("m2", "", 1, 9, three)}, "no leader"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := slices.Clone(c.all)
			err := takers(Config{ID: "m1", Role: c.role}, c.all)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v", err)
			}
			if len(before) != len(c.all) {
				t.Error("changed what it was given")
			}
		})
	}
}

// Without a look at the others a resync is not begun.
func TestResyncLooksFirst(t *testing.T) {
	needs.Root(t)
	c := Config{Name: "m1", Advertise: "127.0.0.1", Data: filepath.Join(t.TempDir(), "data")}
	if _, err := Init(c, InitOptions{Cluster: "c", TokenTTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second) // it would look for longer
	defer cancel()
	for _, from := range [][]string{nil, {"127.0.0.2"}} {
		if _, err := OrderResync(ctx, c.Data, "", from, false); err == nil || !strings.Contains(err.Error(), "no other master") {
			t.Error("got", err)
		}
	}
	if o, err := readOrder(c); o != nil || err != nil {
		t.Errorf("order %+v %v", o, err)
	}
}
