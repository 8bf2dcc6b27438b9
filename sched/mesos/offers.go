package mesos

import (
	"slices"
	"time"

	"appliance/node/model"
	"appliance/sched"
	"appliance/sched/mesos/wire"
)

const (
	// maxOffers is how many offers go into one event; Mesos has the same
	// bound, and clients limit the size of a record.
	maxOffers = 50
	// Less than this is not worth an offer; Mesos has the same bounds.
	minCPUs   = 0.01
	minMemory = 32
	// defaultRefuse and maxRefuse bound a decline filter, as in Mesos.
	defaultRefuse = 5 * time.Second
	maxRefuse     = 365 * 24 * time.Hour
	// offerTimeout takes offers back that a framework only holds, if others
	// wait for them.
	offerTimeout = 60 * time.Second
)

// offer is a part of a node that one framework may use. It lives in the
// memory of the leader.
type offer struct {
	id        string
	node      string
	resources model.Resources
	ports     []int
	at        time.Time
}

// take removes offers from a session. If one of them is not valid, all are
// given up, and fault says why.
func (s *Server) take(ss *session, ids []wire.ID, filters *wire.Filters) (list []*offer, fault string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.wake()
	until := time.Now().Add(refuseFor(filters))
	seen := map[string]bool{}
	for _, id := range ids {
		o := ss.offers[id.Value]
		switch {
		case seen[id.Value]:
			fault = "Duplicate offer " + id.Value + " in offer list"
		case o == nil:
			fault = "Offer " + id.Value + " is no longer valid"
		case len(list) > 0 && list[0].node != o.node:
			fault = "Aggregated offers must belong to one single agent. Offer " + id.Value + " uses agent " + o.node + " and offer " + list[0].id + " uses agent " + list[0].node
		}
		seen[id.Value] = true
		if o != nil {
			delete(ss.offers, id.Value)
			list = append(list, o)
			ss.filter(o.node, until)
		}
	}
	if len(ids) == 0 {
		fault = "No offers specified"
	}
	return list, fault
}

// decline gives offers back; nothing happens for those that are gone.
func (s *Server) decline(ss *session, ids []wire.ID, filters *wire.Filters) { s.take(ss, ids, filters) }

func refuseFor(f *wire.Filters) time.Duration {
	if f == nil || f.RefuseSeconds == nil || !(*f.RefuseSeconds >= 0) {
		return defaultRefuse
	}
	if *f.RefuseSeconds > maxRefuse.Seconds() {
		return maxRefuse
	}
	return time.Duration(*f.RefuseSeconds * float64(time.Second))
}

func (ss *session) filter(node string, until time.Time) {
	if until.After(ss.filters[node]) {
		ss.filters[node] = until
	}
}

// share gives what is free to the frameworks, the one with the smallest share
// first, and takes back what is not free any more. It returns when a filter
// ends. Server.mu is held.
func (s *Server) share(all []sched.Offer, now time.Time) (next time.Time) {
	s.rescind(all, now)
	var total model.Resources
	for i := range all {
		total = total.Add(all[i].Node.Capacity)
	}
	used := usage(all)
	fresh := map[*session][]wire.Offer{}
	for i := range all {
		o := &all[i]
		if !o.Node.Runs() {
			continue
		}
		free, ports := s.unoffered(o)
		if free.CPUs < minCPUs || free.Memory < minMemory {
			continue
		}
		ss, ends := s.choose(o.Node, used, total, now)
		next = earlier(next, ends)
		if ss == nil {
			continue
		}
		given := &offer{id: s.NewID(), node: o.Node.ID, resources: free, ports: ports, at: now}
		ss.offers[given.id] = given
		fresh[ss] = append(fresh[ss], ss.view(given, o.Node))
	}
	for ss, list := range fresh {
		for part := range slices.Chunk(list, maxOffers) {
			ss.send(&wire.Event{Type: wire.EventOffers, Offers: &wire.Offers{Offers: part}})
		}
	}
	return next
}

// unoffered is what of a node is neither used nor offered.
func (s *Server) unoffered(o *sched.Offer) (model.Resources, []int) {
	free, offered := o.Free, map[int]bool{}
	for _, ss := range s.sessions {
		for _, held := range ss.offers {
			if held.node != o.Node.ID {
				continue
			}
			free = free.Sub(held.resources)
			for _, p := range held.ports {
				offered[p] = true
			}
		}
	}
	free.CPUs, free.Memory, free.Disk, free.GPUs = max(free.CPUs, 0), max(free.Memory, 0), max(free.Disk, 0), max(free.GPUs, 0)
	var ports []int
	r := sched.PortRange(o.Node)
	for p := r[0]; p <= r[1]; p++ {
		if !o.Ports[p] && !offered[p] && !slices.Contains(sched.ReservedPorts, p) {
			ports = append(ports, p)
		}
	}
	return free, ports
}

// choose finds who is offered a node, nil if nobody wants it; then ends is
// when the first filter on it ends.
func (s *Server) choose(n *model.Node, used map[string]model.Resources, total model.Resources, now time.Time) (chosen *session, ends time.Time) {
	var clients []sched.Client
	for id, ss := range s.sessions {
		until := ss.filters[n.ID]
		switch {
		case ss.stream == nil || ss.suppressed || n.Capacity.GPUs > 0 && !ss.has(3): // GPU_RESOURCES
		case until.After(now):
			ends = earlier(ends, until)
		default:
			clients = append(clients, sched.Client{ID: id, Role: ss.framework.Roles[0], Used: used[id].Add(ss.held())})
		}
	}
	if len(clients) == 0 {
		return nil, ends
	}
	return s.sessions[sched.Share(clients, total)[0].ID], time.Time{}
}

// usage is what the tasks of each framework hold.
func usage(all []sched.Offer) map[string]model.Resources {
	used := map[string]model.Resources{}
	for i := range all {
		for _, t := range all[i].Tasks {
			used[t.Framework] = used[t.Framework].Add(t.Resources)
		}
	}
	return used
}

// held is what a framework's offers hold.
func (ss *session) held() (r model.Resources) {
	for _, o := range ss.offers {
		r = r.Add(o.resources)
	}
	return r
}

// rescind takes back offers of nodes that have less than was offered, that
// take no tasks, or that a framework only holds.
func (s *Server) rescind(all []sched.Offer, now time.Time) {
	free := map[string]model.Resources{}
	taken := map[string]map[int]bool{}
	for i := range all {
		if all[i].Node.Runs() {
			free[all[i].Node.ID] = all[i].Free
			taken[all[i].Node.ID] = all[i].Ports
		}
	}
	for _, id := range sortedKeys(s.sessions) {
		ss := s.sessions[id]
		for _, oid := range sortedKeys(ss.offers) {
			o := ss.offers[oid]
			rest, runs := free[o.node]
			clash := slices.ContainsFunc(o.ports, func(p int) bool { return taken[o.node][p] })
			stale := len(s.sessions) > 1 && now.Sub(o.at) > offerTimeout
			if runs && !clash && !stale && o.resources.Fits(rest) {
				free[o.node] = rest.Sub(o.resources)
				continue
			}
			delete(ss.offers, oid)
			ss.send(&wire.Event{Type: wire.EventRescind, Rescind: &wire.Rescind{OfferID: &wire.ID{Value: oid}}})
		}
	}
}

// view is an offer as its framework may see it.
func (ss *session) view(o *offer, n *model.Node) wire.Offer {
	role := ""
	if ss.has(6) { // MULTI_ROLE; others choke on allocations
		role = ss.framework.Roles[0]
	}
	out := wire.Offer{
		ID: &wire.ID{Value: o.id}, FrameworkID: &wire.ID{Value: ss.framework.ID}, AgentID: &wire.ID{Value: n.ID}, Hostname: n.Name,
		Resources: resources(o.resources, slices.Clone(o.ports), ss.has(7), role), Attributes: attributes(n),
		URL: &wire.URL{Scheme: "http", Address: &wire.Address{Hostname: n.Name, IP: n.Addr, Port: agentPort}, Path: "/slave(1)"},
	}
	if role != "" {
		out.Allocation = &wire.Allocation{Role: role}
	}
	return out
}

// agentPort is where agents speak the dialect.
const agentPort = 5051

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
