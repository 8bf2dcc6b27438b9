package discovery

import (
	"reflect"
	"slices"
	"strings"
)

// Table is the catalog at one moment. It never changes; everything handed out
// is shared and must not be changed.
type Table struct {
	// Index grows with every change that a consumer can see. It follows the
	// log index, and runs ahead of it when only the gossip's opinion changed,
	// which has no log entry. Indexes of two nodes may therefore differ by a
	// few for the same content.
	Index uint64

	source   uint64 // sourceIndex of the state
	services map[string]*Service
	folded   map[string]string // lower-case name -> name
	names    []string
	nodes    map[string]*Node
	byID     map[string]*Node
	order    []*Node // by name
	byNode   map[string][]*Endpoint
	byApp    map[string][]*Endpoint
	extinct  uint64
	cache    map[string]derived
}

func (t *Table) derived(task string) (derived, bool) {
	if t == nil {
		return derived{}, false
	}
	d, ok := t.cache[task]
	return d, ok
}

// Service returns the service of that name, or nil.
func (t *Table) Service(name string) *Service { return t.services[name] }

// Find is Service without regard to case, as DNS wants it.
func (t *Table) Find(name string) *Service {
	if s := t.services[name]; s != nil {
		return s
	}
	return t.services[t.folded[strings.ToLower(name)]]
}

// ServiceIndex is the index of a service's last change; of a service that does
// not exist it is that of the last disappearance of any.
func (t *Table) ServiceIndex(name string) uint64 {
	if s := t.services[name]; s != nil {
		return s.ModifyIndex
	}
	return max(t.extinct, 1)
}

// Names lists the services in order.
func (t *Table) Names() []string { return t.names }

// Node returns the node of that name, or nil.
func (t *Table) Node(name string) *Node { return t.nodes[name] }

// NodeByID returns the node of the cluster with the id, or nil.
func (t *Table) NodeByID(id string) *Node { return t.byID[id] }

// Nodes lists the nodes by name.
func (t *Table) Nodes() []*Node { return t.order }

// OnNode lists the endpoints on a node, by service and id.
func (t *Table) OnNode(name string) []*Endpoint { return t.byNode[name] }

// App lists the endpoints of an app, offered or not; those of one port have
// the same PortIndex.
func (t *Table) App(id string) []*Endpoint { return t.byApp[id] }

func (b *builder) table() *Table {
	next := &Table{
		source: sourceIndex(b.snap), cache: b.cache,
		services: make(map[string]*Service, len(b.groups)), folded: make(map[string]string, len(b.groups)),
		nodes: make(map[string]*Node, len(b.views)), byID: make(map[string]*Node, len(b.views)),
		byNode: map[string][]*Endpoint{}, byApp: map[string][]*Endpoint{},
	}
	prev := b.prev
	if prev == nil {
		prev = &Table{}
		next.Index = max(next.source, 1)
		next.extinct = next.Index
	} else {
		next.Index = max(prev.Index+1, next.source)
		next.extinct = prev.extinct
	}
	changed := b.takeNodes(prev, next)
	changed = b.takeServices(prev, next) || changed
	if !changed && b.prev != nil {
		kept := *b.prev
		kept.source, kept.cache = next.source, next.cache
		return &kept
	}
	next.arrange()
	return next
}

// takeNodes fills the nodes, keeping the former value of those that look alike.
func (b *builder) takeNodes(prev, next *Table) (changed bool) {
	changed = len(prev.nodes) != len(b.views)
	for name, v := range b.views {
		n := v.Node
		if old := prev.nodes[name]; old != nil && reflect.DeepEqual(old, n) {
			n = old
		} else {
			changed = true
		}
		next.nodes[name] = n
		if n.ID != "" {
			next.byID[n.ID] = n
		}
	}
	return changed
}

// takeServices fills the services. One whose endpoints and nodes did not
// change is the former value with its former index.
func (b *builder) takeServices(prev, next *Table) (changed bool) {
	for name, group := range b.groups {
		eps := b.finish(group)
		old := prev.services[name]
		if old != nil && unchanged(prev, next, old, eps) {
			next.services[name] = old
			continue
		}
		changed = true
		next.services[name] = newService(name, eps, next.Index)
	}
	for name := range prev.services {
		if next.services[name] == nil {
			changed = true
			next.extinct = next.Index
		}
	}
	return changed
}

func unchanged(prev, next *Table, old *Service, eps []*Endpoint) bool {
	return slices.EqualFunc(old.Endpoints, eps, func(x, y *Endpoint) bool {
		return same(x, y) && prev.nodes[x.Node] == next.nodes[y.Node]
	})
}

func newService(name string, eps []*Endpoint, index uint64) *Service {
	s := &Service{Name: name, Endpoints: eps, ModifyIndex: index, Tags: []string{}}
	for _, e := range eps {
		s.Tags = append(s.Tags, e.Tags...)
		if e.Offered() {
			s.offered = append(s.offered, e)
		}
	}
	slices.Sort(s.Tags)
	s.Tags = slices.Compact(s.Tags)
	return s
}

// arrange fills the indexes that follow from services and nodes.
func (t *Table) arrange() {
	for name := range t.services {
		t.names = append(t.names, name)
	}
	slices.Sort(t.names)
	for _, name := range t.names {
		if low := strings.ToLower(name); t.folded[low] == "" {
			t.folded[low] = name
		}
		for _, e := range t.services[name].Endpoints {
			t.byNode[e.Node] = append(t.byNode[e.Node], e)
			if e.App != "" {
				t.byApp[e.App] = append(t.byApp[e.App], e)
			}
		}
	}
	for _, n := range t.nodes {
		t.order = append(t.order, n)
	}
	slices.SortFunc(t.order, func(a, b *Node) int { return compare(a.Name, b.Name) })
}
