package sched

import "appliance/node/model"

// release names a release of an app; cheaper as a map key than its text.
type release struct {
	app     string
	version uint64
}

func releaseOf(t *model.Task) release { return release{t.App, t.Release} }

// census counts, in one pass over all tasks, what the waiting releases
// already have on each node.
type census struct {
	tasks  map[release]map[string]int // live tasks by release and node
	failed map[string]map[string]int  // recent failures by app and node
	envs   map[*model.Environment][]bool
}

// selected marks the offers of nodes that run tasks and belong to env; apps of
// one environment share the answer.
func (c census) selected(env *model.Environment, offers []Offer) []bool {
	marks, ok := c.envs[env]
	if ok {
		return marks
	}
	marks = make([]bool, len(offers))
	for i := range offers {
		n := offers[i].Node
		marks[i] = env != nil && n.Runs() && env.Selects(n)
	}
	c.envs[env] = marks
	return marks
}

func takeCensus(groups [][]Pending, offers []Offer) census {
	c := census{map[release]map[string]int{}, map[string]map[string]int{}, map[*model.Environment][]bool{}}
	for _, g := range groups {
		c.tasks[releaseOf(g[0].Task)] = map[string]int{}
		c.failed[g[0].Task.App] = map[string]int{}
	}
	for i := range offers {
		node := offers[i].Node.ID
		for _, t := range offers[i].Tasks {
			if counts := c.tasks[releaseOf(t)]; counts != nil {
				counts[node]++
			}
		}
		for _, t := range offers[i].Failed {
			if counts := c.failed[t.App]; counts != nil {
				counts[node]++
			}
		}
	}
	return c
}
