package chaos

import (
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Rule is an invariant with what was found of it.
type Rule struct {
	Name       string   `json:"name"`
	Checks     int      `json:"checks"`
	Violations int      `json:"violations"`
	Examples   []string `json:"examples,omitempty"`
}

const maxExamples = 5 // of violations of one rule: the first ones tell most

// verdicts collects what the checkers find. Safe for concurrent use.
type verdicts struct {
	say func(format string, args ...any) // tells a violation at once

	mu    sync.Mutex
	rules map[string]*Rule
	notes []string
}

func newVerdicts(say func(format string, args ...any)) *verdicts {
	return &verdicts{say: say, rules: map[string]*Rule{}}
}

func (v *verdicts) rule(name string) *Rule {
	r := v.rules[name]
	if r == nil {
		r = &Rule{Name: name}
		v.rules[name] = r
	}
	return r
}

func (v *verdicts) check(rule string, n int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.rule(rule).Checks += n
}

func (v *verdicts) checks(rule string) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.rule(rule).Checks
}

func (v *verdicts) violate(rule, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	v.mu.Lock()
	r := v.rule(rule)
	r.Violations++
	told := len(r.Examples) < maxExamples
	if told {
		r.Examples = append(r.Examples, text)
	}
	v.mu.Unlock()
	if told {
		v.say("VIOLATION: %s: %s", rule, text)
	}
}

// note keeps what a reader should know and is no violation.
func (v *verdicts) note(format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if text := fmt.Sprintf(format, args...); len(v.notes) < 20 && !slices.Contains(v.notes, text) {
		v.notes = append(v.notes, text)
	}
}

func (v *verdicts) list() (list []Rule, notes []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, r := range v.rules {
		list = append(list, *r)
	}
	slices.SortFunc(list, func(a, b Rule) int { return strings.Compare(a.Name, b.Name) })
	return list, slices.Clone(v.notes)
}

func (v *verdicts) violations() (n int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, r := range v.rules {
		n += r.Violations
	}
	return n
}
