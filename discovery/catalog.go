package discovery

import (
	"reflect"
	"slices"

	"appliance/node/model"
	"appliance/raft/state"
)

// sources are the tables that the catalog derives from.
var sources = []string{
	state.Nodes.Name, state.Tasks.Name, state.Releases.Name, state.Services.Name, state.Checks.Name,
}

// sourceIndex is the log index of the last change that the catalog can show.
func sourceIndex(snap *state.Snapshot) uint64 {
	var index uint64
	for _, name := range sources {
		index = max(index, snap.TableIndex(name))
	}
	return index
}

// Catalog derives the table of a state. It is pure: live is asked once per
// node, and nothing else is looked at.
func Catalog(snap *state.Snapshot, live Liveness) *Table { return Rebuild(nil, snap, live) }

// Rebuild is Catalog that takes over from prev whatever did not change, and
// continues its indexes. prev may be nil.
func Rebuild(prev *Table, snap *state.Snapshot, live Liveness) *Table {
	b := &builder{prev: prev, snap: snap, checks: storedChecks(snap), groups: map[string][]*Endpoint{}}
	b.views, b.left = nodeViews(snap, b.checks, live)
	b.tasks()
	b.external()
	b.masters()
	return b.table()
}

// derived remembers the endpoints of a task with the rows they came from; rows
// are immutable, so equal pointers mean equal endpoints.
type derived struct {
	task      *model.Task
	release   *model.Release
	node      *model.Node
	endpoints []*Endpoint
}

type builder struct {
	prev   *Table
	snap   *state.Snapshot
	checks nodeChecks
	views  map[string]*nodeView
	left   map[string]bool
	cache  map[string]derived
	groups map[string][]*Endpoint // by service, node health not yet applied
}

func (b *builder) add(e *Endpoint) { b.groups[e.Service] = append(b.groups[e.Service], e) }

func (b *builder) tasks() {
	b.cache = map[string]derived{}
	for t := range state.Tasks.All(b.snap) {
		if t.Node == "" || !t.Live() {
			continue
		}
		n := state.Nodes.Get(b.snap, t.Node)
		if n == nil || b.views[n.Name] == nil || b.views[n.Name].row != n {
			continue
		}
		var rel *model.Release
		if t.App != "" {
			rel = state.Releases.Get(b.snap, model.ReleaseKey(t.App, t.Release))
		}
		d := derived{task: t, release: rel, node: n}
		if old, ok := b.prev.derived(t.ID); ok && old.task == t && old.release == rel && old.node == n {
			d.endpoints = old.endpoints
		} else {
			d.endpoints = taskEndpoints(t, rel, n)
		}
		b.cache[t.ID] = d
		for _, e := range d.endpoints {
			b.add(e)
		}
	}
}

func (b *builder) external() {
	for s := range state.Services.All(b.snap) {
		if s.Name != "" && !b.left[s.Node] {
			b.add(externalEndpoint(s, b.views[s.Node].Node, b.checks[s.Node][s.ID]))
		}
	}
}

func (b *builder) masters() {
	for _, v := range b.views {
		if v.Role == model.RoleMaster {
			b.add(masterEndpoint(v.Node))
		}
	}
}

// finish applies node health to the endpoints of one service, with the rule
// that doubt never empties a set: if every endpoint that is good by the log is
// on a node that gossip believes dead, those whose node died last are kept.
func (b *builder) finish(group []*Endpoint) []*Endpoint {
	good := func(e *Endpoint) bool { return Worse(e.Status, b.views[e.Node].hard) != Critical && !e.Draining }
	certain := false
	var last *nodeView
	for _, e := range group {
		if v := b.views[e.Node]; good(e) {
			certain = certain || !v.suspected
			if v.suspected && (last == nil || v.since.After(last.since)) {
				last = v
			}
		}
	}
	out := make([]*Endpoint, len(group))
	for i, e := range group {
		v := b.views[e.Node]
		kept := !certain && good(e) && v.suspected && last.since.Sub(v.since) <= DoubtWindow
		out[i] = v.apply(e, kept)
	}
	slices.SortFunc(out, func(x, y *Endpoint) int {
		if c := compare(x.Node, y.Node); c != 0 {
			return c
		}
		return compare(x.ID, y.ID)
	})
	return out
}

// same reports whether two endpoints look alike to every consumer.
func same(a, b *Endpoint) bool { return a == b || reflect.DeepEqual(*a, *b) }
