package doctor

import (
	"slices"
	"time"
)

// clearFor is how long a finding must be absent before it is over: shorter
// pauses are the same trouble.
const clearFor = 10 * time.Second

// maxFindings bounds a board: some per code are readable, hundreds are not.
const maxFindings = 200

type key struct {
	code    Code
	node    string
	subject string
}

// entry is a finding on its way up or down.
type entry struct {
	Finding
	open        bool
	first, seen time.Time // here
}

// Board keeps the findings of one node. It is not safe for concurrent use.
type Board struct{ entries map[key]*entry }

// NewBoard returns a board without findings.
func NewBoard() *Board { return &Board{entries: map[key]*entry{}} }

// Change is a finding that opened, became worse or better, or is over.
type Change struct {
	Finding
	Before Severity
	Over   bool
}

// Was is the severity of an open finding, for checks with hysteresis.
func (b *Board) Was(c Code) Severity {
	worst := Fine
	for _, e := range b.entries {
		if e.open && e.Code == c && e.Severity.Worse(worst) {
			worst = e.Severity
		}
	}
	return worst
}

// Update takes what the checks found now and returns what has changed: first
// of what was found, in that order, then what is over, the worst first.
func (b *Board) Update(now time.Time, found []Finding) []Change {
	var out, over []Change
	for _, f := range found {
		k := key{f.Code, f.Node, f.Subject}
		e := b.entries[k]
		if e == nil {
			if len(b.entries) == maxFindings {
				continue
			}
			e = &entry{Finding: f, first: now}
			if e.Since.IsZero() {
				e.Since = now
			}
			b.entries[k] = e
		}
		if c, changed := e.update(f, now); changed {
			out = append(out, c)
		}
	}
	for k, e := range b.entries {
		switch absent := now.Sub(e.seen); {
		case absent == 0:
		case !e.open:
			delete(b.entries, k)
		case absent >= clearFor:
			delete(b.entries, k)
			over = append(over, Change{e.Finding, e.Severity, true})
		}
	}
	slices.SortFunc(over, func(a, b Change) int { return worstFirst(a.Finding, b.Finding) })
	return append(out, over...)
}

// update takes a finding that is there now.
func (e *entry) update(f Finding, now time.Time) (Change, bool) {
	e.seen = now
	since, before, open := e.Since, e.Severity, e.open
	if f.Since.IsZero() {
		f.Since = since
	}
	e.Finding = f
	e.open = open || now.Sub(e.first) >= f.hold
	switch {
	case e.open && !open:
		return Change{Finding: e.Finding}, true
	case e.open && before != f.Severity:
		return Change{Finding: e.Finding, Before: before}, true
	}
	return Change{}, false
}

// Open returns the findings that count, the worst first.
func (b *Board) Open() []Finding {
	out := []Finding{}
	for _, e := range b.entries {
		if e.open {
			out = append(out, e.Finding)
		}
	}
	Sort(out)
	return out
}

// Level judges a figure that is better the lower it is. It comes down from a
// severity only below 80 % of the threshold.
type Level struct{ Warn, Error float64 }

const hysteresis = 0.8

// Judge returns the severity of v after it was before.
func (l Level) Judge(v float64, before Severity) Severity {
	limit := func(threshold float64, s Severity) float64 {
		if !s.Worse(before) {
			return threshold * hysteresis
		}
		return threshold
	}
	switch {
	case v >= limit(l.Error, Error):
		return Error
	case v >= limit(l.Warn, Warning):
		return Warning
	}
	return Fine
}
