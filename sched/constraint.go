package sched

import (
	"fmt"
	"math"
	"regexp"
	"strconv"

	"appliance/node/model"
)

// Constraint operators, as Marathon names them.
const (
	opUnique  = "UNIQUE"
	opCluster = "CLUSTER"
	opGroupBy = "GROUP_BY"
	opLike    = "LIKE"
	opUnlike  = "UNLIKE"
	opMaxPer  = "MAX_PER"
	opIs      = "IS"
)

// rule is one constraint during one Match of one release. It counts the
// release's live tasks by attribute value. Tasks of other releases do not
// count: otherwise UNIQUE would keep a rolling deployment from ever starting
// on a full set of hosts.
type rule struct {
	model.Constraint
	pattern *regexp.Regexp
	limit   int
	counts  map[string]int  // tasks by value
	groups  map[string]bool // values of the nodes that could take the task
}

func newRule(c model.Constraint) *rule {
	r := &rule{Constraint: c, counts: map[string]int{}, groups: map[string]bool{}}
	switch c.Operator {
	case opLike, opUnlike:
		r.pattern, _ = regexp.Compile("^(?:" + c.Value + ")$") // nil (matches nothing) after a failed Validate
	case opMaxPer, opGroupBy:
		r.limit, _ = strconv.Atoi(c.Value)
	}
	return r
}

// attribute gives the value of a field of a constraint on a node.
func attribute(n *model.Node, field string) (string, bool) {
	switch field {
	case "hostname", "@hostname":
		return n.Name, true
	case "@region", "@zone":
		field = field[1:]
	}
	v, ok := n.Attributes[field]
	return v, ok
}

// fixed reports whether the verdict on a node cannot change by placing tasks.
func (r *rule) fixed() bool {
	switch r.Operator {
	case opLike, opUnlike, opIs:
		return true
	}
	return r.Operator == opCluster && r.Value != ""
}

// admits reports whether the node may take one more task of the release.
func (r *rule) admits(n *model.Node) bool {
	v, ok := attribute(n, r.Attribute)
	if !ok {
		return r.Operator == opUnlike
	}
	switch r.Operator {
	case opLike:
		return r.pattern != nil && r.pattern.MatchString(v)
	case opUnlike:
		return r.pattern != nil && !r.pattern.MatchString(v)
	case opIs:
		return sameValue(v, r.Value)
	case opCluster:
		if r.Value != "" {
			return sameValue(v, r.Value)
		}
		return len(r.counts) == 0 || r.counts[v] > 0
	case opUnique:
		return r.counts[v] == 0
	case opMaxPer:
		return r.counts[v] < r.limit
	case opGroupBy:
		return r.balances(v)
	}
	return false
}

// balances reports whether value v is among the groups with the fewest tasks,
// and no group too many.
func (r *rule) balances(v string) bool {
	if r.limit > 0 && r.counts[v] == 0 && len(r.counts) >= r.limit {
		return false
	}
	capped := r.limit > 0 && len(r.counts) >= r.limit
	for g := range r.groups {
		if r.counts[g] < r.counts[v] && (!capped || r.counts[g] > 0) {
			return false
		}
	}
	return true
}

// took notes a task of the release on the node.
func (r *rule) took(n *model.Node) {
	if v, ok := attribute(n, r.Attribute); ok {
		r.counts[v]++
	}
}

// why explains a refusal.
func (r *rule) why(n *model.Node) string {
	name := r.String()
	v, ok := attribute(n, r.Attribute)
	if !ok {
		return fmt.Sprintf("%s: the node has no attribute %s", name, r.Attribute)
	}
	switch r.Operator {
	case opUnique:
		return fmt.Sprintf("%s: %s=%s has %d", name, r.Attribute, v, r.counts[v])
	case opMaxPer:
		return fmt.Sprintf("%s: %s=%s has %d of at most %d", name, r.Attribute, v, r.counts[v], r.limit)
	case opGroupBy:
		return fmt.Sprintf("%s: %s=%s has %d, another group fewer", name, r.Attribute, v, r.counts[v])
	}
	return fmt.Sprintf("%s: the node has %s=%s", name, r.Attribute, v)
}

// String is the constraint as a user writes it.
func (r *rule) String() string {
	s := r.Attribute + " " + r.Operator
	if r.Value != "" {
		s += " " + r.Value
	}
	return s
}

// sameValue compares as text, numbers rounded to three decimals as Mesos
// prints scalars.
func sameValue(a, b string) bool {
	if a == b {
		return true
	}
	x, errX := strconv.ParseFloat(a, 64)
	y, errY := strconv.ParseFloat(b, 64)
	return errX == nil && errY == nil && math.Round(x*1000) == math.Round(y*1000)
}
