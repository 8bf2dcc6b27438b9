package gossip

import (
	"slices"
	"time"
)

// FaultKind is what is wrong between two nodes.
type FaultKind string

const (
	// FaultOneWay: what From sends to To is lost, the other direction works.
	FaultOneWay FaultKind = "one-way"
	// FaultCut: nothing passes in either direction.
	FaultCut FaultKind = "cut"
	// FaultPort: datagrams pass both ways, but calls of From to To fail: the
	// wire port is closed to it, or the two do not accept each other.
	FaultPort FaultKind = "port"
	// FaultDatagrams: calls work, datagrams of From do not reach To: the gossip
	// port is closed to it.
	FaultDatagrams FaultKind = "datagrams"
	// FaultUnclear: From does not reach To, and To does not watch From.
	FaultUnclear FaultKind = "unclear"
)

// Fault is a broken link between two nodes that are both there. For FaultCut
// the order of the two says nothing.
type Fault struct {
	From, To string // node ids
	Kind     FaultKind
	State    LinkState // of the failing call
	Since    time.Time
}

// Faults finds the broken links in a matrix. Only rows that are fresher than
// maxAge count: a node that fell silent as a whole is no matter of links.
func Faults(rows []Row, maxAge time.Duration, now time.Time) []Fault {
	var out []Fault
	fresh := map[string]Row{}
	for _, r := range rows {
		if now.Sub(r.At) <= maxAge {
			fresh[r.From] = r
		}
	}
	for _, a := range rows {
		for _, l := range a.Links {
			b, both := fresh[l.To]
			if _, ok := fresh[a.From]; !ok || !both || l.State == LinkUntried {
				continue
			}
			back, watched := b.link(a.From)
			switch {
			case !watched || back.State == LinkUntried:
				if l.State != LinkOK {
					out = append(out, Fault{a.From, l.To, FaultUnclear, l.State, l.Since})
				}
			case a.From < l.To: // each pair once
				out = append(out, between(a.From, l, l.To, back)...)
			}
		}
	}
	slices.SortFunc(out, func(x, y Fault) int { return x.Since.Compare(y.Since) })
	return out
}

// between judges a pair of which both watch each other: l is a's view of b.
func between(a string, l Link, b string, back Link) []Fault {
	since := l.Since
	if back.Since.After(since) {
		since = back.Since
	}
	okA, okB := l.State == LinkOK, back.State == LinkOK
	aToB, bToA := back.Heard, l.Heard // datagrams
	switch {
	case okA && okB:
		var out []Fault
		if !aToB {
			out = append(out, Fault{a, b, FaultDatagrams, LinkOK, since})
		}
		if !bToA {
			out = append(out, Fault{b, a, FaultDatagrams, LinkOK, since})
		}
		return out
	case okB: // only a's calls fail
		return []Fault{{a, b, FaultPort, l.State, l.Since}}
	case okA:
		return []Fault{{b, a, FaultPort, back.State, back.Since}}
	case bToA && !aToB:
		return []Fault{{a, b, FaultOneWay, l.State, since}}
	case aToB && !bToA:
		return []Fault{{b, a, FaultOneWay, back.State, since}}
	case !aToB && !bToA:
		return []Fault{{a, b, FaultCut, l.State, since}}
	}
	return []Fault{{a, b, FaultPort, l.State, l.Since}, {b, a, FaultPort, back.State, back.Since}}
}

// link finds the row's view of a node.
func (r *Row) link(to string) (Link, bool) {
	i := slices.IndexFunc(r.Links, func(l Link) bool { return l.To == to })
	if i < 0 {
		return Link{}, false
	}
	return r.Links[i], true
}
