package chaos

import (
	"fmt"
	"slices"
	"time"

	"appliance/vagrant"
)

// Growth compares sizes after the warm-up with those of the end: of one
// machine's processes, or of all masters or agents.
type Growth struct {
	Of       string  `json:"of"`
	First    Size    `json:"first"` // medians
	Last     Size    `json:"last"`
	Restarts int     `json:"restarts"`
	Memory   float64 `json:"memory_growth_percent"` // at like ages
	Pairs    int     `json:"pairs"`                 // that were compared for it
}

const (
	// growthTime is the least run whose growth is judged.
	growthTime = 15 * time.Minute
	// calmFrom is the least run whose last third is calm: that is long enough to be judged.
	calmFrom = 4 * growthTime
	// warmTime is the least time until sizes count: everything fills its buffers.
	warmTime = 5 * time.Minute
	// settledAge is the least age of a process whose size counts.
	settledAge = 20 * time.Second
	// likeAge is the ratio up to which two processes are of like age: a process
	// that has just read its state needs less than one that has worked with it.
	likeAge   = 2
	minPairs  = 5 // less than this proves nothing
	maxGrowth = 5 // percent of the memory
	// slack and slackPercent of goroutines and files: connections come and go.
	slack, slackPercent = 10, 5
)

// most is how many goroutines or files there may be of so many at first.
func most(first int) int { return first + slack + first*slackPercent/100 }

// windows are the times whose sizes are compared: the first and the last third
// of what follows the warm-up.
func windows(from, to time.Duration) (first, last func(Size) bool) {
	took := to - from
	warm := max(warmTime, took/10)
	if took < growthTime {
		warm = took / 5
	}
	third := (took - warm) / 3
	first = func(s Size) bool {
		return s.Age >= settledAge && s.At >= from+warm && s.At < from+warm+third
	}
	last = func(s Size) bool { return s.Age >= settledAge && s.At >= to-third && s.At <= to }
	return first, last
}

// growth compares each late size with the median of the early ones of
// processes of its age, and returns the median in percent.
func growth(early, late []Size) (percent float64, pairs int) {
	var ratios []float64
	for _, s := range late {
		var like []Size
		for _, e := range early {
			if e.Pid == s.Pid && e.Of == s.Of || e.Age <= likeAge*s.Age && s.Age <= likeAge*e.Age {
				like = append(like, e)
			}
		}
		if len(like) > 0 {
			ratios = append(ratios, float64(s.Memory)/float64(median(like).Memory))
		}
	}
	if len(ratios) == 0 {
		return 0, 0
	}
	return 100 * (middle(ratios) - 1), len(ratios)
}

// growth fills in the report. Masters are alike, and so are agents, but one
// leads at a time: so memory is judged by role, each machine's row is for people.
func (r *run) growth() {
	for _, role := range []string{vagrant.RoleMaster, vagrant.RoleAgent} {
		var machines []string
		for _, m := range r.cluster.Machines {
			if m.Role == role {
				machines = append(machines, m.Name)
			}
		}
		if len(machines) > 0 {
			r.report.grow("all "+role+"s", machines, r.sizes, r.calm)
			r.report.lived("the same "+role+"s", machines, r.sizes, r.calm)
		}
	}
}

// grow adds the rows of one role, and what is over its limit. A calm end, in
// which nothing is young, is compared apart.
func (r *Report) grow(role string, machines []string, sizes []map[string]Size, calm time.Duration) {
	var all []Size
	total := 0
	for _, m := range machines {
		var own []Size
		for _, at := range sizes {
			if s, ok := at[m]; ok {
				own = append(own, s)
			}
		}
		all = append(all, own...)
		total += restarts(own)
	}
	to := r.Took
	if calm >= growthTime {
		to = calm
	}
	first, last := windows(0, to)
	early, late := keep(all, first), keep(all, last)
	row := func(name string, is func(Size) bool, restarts int) Growth {
		g := Growth{Of: name, First: median(keep(early, is)), Last: median(keep(late, is)), Restarts: restarts}
		g.Memory, g.Pairs = growth(early, keep(late, is))
		r.Growth = append(r.Growth, g)
		return g
	}
	for _, m := range machines {
		is := func(s Size) bool { return s.Of == m }
		if g := row(m, is, restarts(keep(all, is))); r.Took >= growthTime {
			r.judgeCounts(g)
		}
	}
	if g := row(role, func(Size) bool { return true }, total); r.Took >= growthTime {
		r.judgeMemory(g)
	}
}

// lived adds the row of a role's processes that have lived since the last
// scenario that ends some. Each is compared with itself, by all its resident
// memory: what leaks with a process's age is not seen at like age.
func (r *Report) lived(role string, machines []string, sizes []map[string]Size, calm time.Duration) {
	if r.Took-calm < growthTime {
		return
	}
	first, last := windows(calm, r.Took)
	var early, late []Size // of each process
	for _, m := range machines {
		pid := sizes[len(sizes)-1][m].Pid
		var own []Size
		for _, at := range sizes {
			if s := at[m]; s.Pid == pid && pid != 0 {
				own = append(own, s)
			}
		}
		if e, l := keep(own, first), keep(own, last); len(e) > 0 && len(l) > 0 {
			early, late = append(early, median(e)), append(late, median(l))
		}
	}
	g := Growth{Of: role, First: median(early), Last: median(late), Restarts: len(machines) - len(early), Pairs: len(early)}
	if 2*g.Pairs <= len(machines) {
		r.Growth = append(r.Growth, g)
		r.Grown = append(r.Grown, fmt.Sprintf("the memory of %s was not proven flat: only %d of %d processes lived", g.Of, g.Pairs, len(machines)))
		return
	}
	// All together: who leads among them may change.
	if g.Memory = 100 * (float64(resident(late))/float64(resident(early)) - 1); g.Memory > maxGrowth {
		r.Grown = append(r.Grown, fmt.Sprintf("the memory of %s grew by %.1f %%", g.Of, g.Memory))
	}
	r.Growth = append(r.Growth, g)
	r.judgeCounts(g)
}

func resident(list []Size) (sum int64) {
	for _, s := range list {
		sum += s.Memory + s.Mapped
	}
	return sum
}

func keep(list []Size, ok func(Size) bool) (out []Size) {
	for _, s := range list {
		if ok(s) {
			out = append(out, s)
		}
	}
	return out
}

// judgeMemory says whether the memory of all of a role is over its limit.
func (r *Report) judgeMemory(g Growth) {
	if g.Pairs < minPairs {
		r.Grown = append(r.Grown, fmt.Sprintf("the memory of %s was not proven flat: only %d sizes could be compared", g.Of, g.Pairs))
	} else if g.Memory > maxGrowth {
		r.Grown = append(r.Grown, fmt.Sprintf("the memory of %s grew by %.1f %%", g.Of, g.Memory))
	}
}

// judgeCounts says whether goroutines and files are over their limit.
func (r *Report) judgeCounts(g Growth) {
	if g.First.Goroutines > 0 && (g.Last.Goroutines > most(g.First.Goroutines) || g.Last.Files > most(g.First.Files)) {
		r.Grown = append(r.Grown, fmt.Sprintf("%s went from %d goroutines and %d files to %d and %d", g.Of,
			g.First.Goroutines, g.First.Files, g.Last.Goroutines, g.Last.Files))
	}
}

// restarts counts the changes of process.
func restarts(list []Size) (n int) {
	for i := 1; i < len(list); i++ {
		if list[i].Pid != list[i-1].Pid {
			n++
		}
	}
	return n
}

// median is that of each field, 0 of nothing.
func median(list []Size) Size {
	field := func(get func(Size) int64) int64 {
		var values []int64
		for _, s := range list {
			values = append(values, get(s))
		}
		return middle(values)
	}
	return Size{
		Memory: field(func(s Size) int64 { return s.Memory }), Mapped: field(func(s Size) int64 { return s.Mapped }),
		Heap: field(func(s Size) int64 { return s.Heap }), Age: time.Duration(field(func(s Size) int64 { return int64(s.Age) })),
		Goroutines: int(field(func(s Size) int64 { return int64(s.Goroutines) })), Files: int(field(func(s Size) int64 { return int64(s.Files) })),
	}
}

func middle[T int64 | float64](list []T) T {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[len(list)/2]
}
