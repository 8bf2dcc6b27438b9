package sched

import (
	"cmp"
	"container/heap"
	"slices"
	"time"

	"appliance/node/model"
	"appliance/sched/deploy"
)

// MaxRefusals bounds the refusals kept for one app, so that a cluster of
// thousands of nodes does not write one line per node into the log.
const MaxRefusals = 50

// Matched is the outcome of Match.
type Matched struct {
	Placements []model.Placement
	Waiting    []model.Waiting // one per app that got fewer places than it wants
}

// Match gives waiting tasks their places: higher priority first, then first
// come first served by app. Tasks of a release are spread over nodes, fewest
// of the same release (and recent failures of the app) first, then the least
// loaded. The offers are counted down.
//
// All tasks of a release want the same, and a place can only get worse while
// tasks are placed; so when one finds none, the rest of them need not look.
func Match(pending []Pending, offers []Offer, now time.Time) Matched {
	var m Matched
	sorted := groups(pending)
	here := takeCensus(sorted, offers)
	for _, group := range sorted {
		g := newMatcher(group[0], offers, here, now)
		for i, p := range group {
			place, ok := g.place(p.Task)
			if !ok {
				m.Waiting = append(m.Waiting, waiting(group[i:], g.refusals()))
				break
			}
			place.At = now
			m.Placements = append(m.Placements, place)
		}
	}
	m.Waiting = mergeWaiting(m.Waiting)
	return m
}

// groups cuts the queue by release, ordered by priority and by the age of the
// oldest task.
func groups(pending []Pending) [][]Pending {
	sorted := slices.Clone(pending)
	slices.SortStableFunc(sorted, func(a, b Pending) int {
		return cmp.Or(
			cmp.Compare(b.Spec.Priority, a.Spec.Priority),
			a.Task.CreatedAt.Compare(b.Task.CreatedAt),
			cmp.Compare(a.Task.ID, b.Task.ID))
	})
	index := map[string]int{}
	var out [][]Pending
	for _, p := range sorted {
		key := model.ReleaseKey(p.Task.App, p.Task.Release)
		i, ok := index[key]
		if !ok {
			i = len(out)
			index[key] = i
			out = append(out, nil)
		}
		out[i] = append(out[i], p)
	}
	return out
}

// slot is a node as one release sees it.
type slot struct {
	offer *Offer
	index int // among the offers; decides between equals
	crowd int // tasks of the release here, and recent failures of the app
	load  float64
}

// matcher places the tasks of one release.
type matcher struct {
	Pending
	now    time.Time
	offers []Offer
	rules  []*rule
	slots  slots
}

func newMatcher(p Pending, offers []Offer, c census, now time.Time) *matcher {
	m := &matcher{Pending: p, now: now, offers: offers}
	tasks, failed := c.tasks[releaseOf(p.Task)], c.failed[p.Task.App]
	for _, c := range p.Spec.Constraints {
		m.rules = append(m.rules, newRule(c))
	}
	m.slots = make(slots, 0, len(offers))
	selected := c.selected(p.Env, offers)
	for i := range offers {
		o := &offers[i]
		for range tasks[o.Node.ID] {
			m.count(o.Node)
		}
		if !selected[i] || !m.belongs(o.Node) {
			continue
		}
		for _, r := range m.rules {
			if v, ok := attribute(o.Node, r.Attribute); ok {
				r.groups[v] = true
			}
		}
		m.slots = append(m.slots, slot{offer: o, index: i, crowd: tasks[o.Node.ID] + failed[o.Node.ID], load: o.load()})
	}
	heap.Init(&m.slots)
	return m
}

// count tells the rules about a task of the release on the node.
func (m *matcher) count(n *model.Node) {
	for _, r := range m.rules {
		r.took(n)
	}
}

// belongs is the part of the verdict that placing tasks does not change.
func (m *matcher) belongs(n *model.Node) bool {
	if len(m.Volumes) > 0 || deploy.Waits(m.App, m.now) {
		return false
	}
	for _, r := range m.rules {
		if r.fixed() && !r.admits(n) {
			return false
		}
	}
	return true
}

// place finds the best node for one task and takes it from the offer.
func (m *matcher) place(t *model.Task) (model.Placement, bool) {
	var aside []slot // out of balance now, perhaps not after the next placement
	defer func() {
		for _, s := range aside {
			heap.Push(&m.slots, s)
		}
	}()
	for len(m.slots) > 0 {
		best := &m.slots[0]
		if load := best.offer.load(); load > best.load {
			best.load = load // an earlier group placed tasks here
			heap.Fix(&m.slots, 0)
			continue
		}
		o := best.offer
		if !t.Resources.Fits(o.Free) {
			heap.Pop(&m.slots)
			continue
		}
		if ok, lasting := m.admitted(o.Node); !ok {
			s := heap.Pop(&m.slots).(slot)
			if !lasting {
				aside = append(aside, s)
			}
			continue
		}
		ports, why := choosePorts(o, m.Spec, t.ID)
		if why != "" {
			heap.Pop(&m.slots)
			continue
		}
		m.settle(t, ports)
		return model.Placement{Task: t.ID, Node: o.Node.ID, Ports: ports}, true
	}
	return model.Placement{}, false
}

// settle counts a task into the best slot.
func (m *matcher) settle(t *model.Task, ports []int) {
	best := &m.slots[0]
	placed := *t
	placed.Node, placed.Ports = best.offer.Node.ID, ports
	best.offer.take(&placed)
	best.crowd++
	best.load = best.offer.load()
	m.count(best.offer.Node)
	heap.Fix(&m.slots, 0)
}

// admitted asks the rules that depend on placements. Lasting means that the
// node will not be admitted later in this Match either.
func (m *matcher) admitted(n *model.Node) (ok, lasting bool) {
	for _, r := range m.rules {
		if !r.fixed() && !r.admits(n) {
			return false, r.Operator != opGroupBy
		}
	}
	return true, false
}

// slots is a heap, the best node first.
type slots []slot

func (s slots) Len() int      { return len(s) }
func (s slots) Swap(i, j int) { s[i], s[j] = s[j], s[i] }
func (s *slots) Push(x any)   { *s = append(*s, x.(slot)) }
func (s slots) Less(i, j int) bool {
	a, b := &s[i], &s[j]
	if a.crowd != b.crowd {
		return a.crowd < b.crowd
	}
	if a.load != b.load {
		return a.load < b.load
	}
	return a.index < b.index
}

func (s *slots) Pop() any {
	old := *s
	last := old[len(old)-1]
	*s = old[:len(old)-1]
	return last
}
