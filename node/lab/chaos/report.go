package chaos

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is what a run has found.
type Report struct {
	Seed         uint64        `json:"seed"`
	Took         time.Duration `json:"took_ns"`
	Parts        []Part        `json:"scenarios"`
	Clients      []Tally       `json:"clients"`             // of all scenarios
	Acknowledged int           `json:"acknowledged_writes"` // that were looked for afterwards: all, or the run means nothing
	Lost         int           `json:"lost_writes"`
	Rules        []Rule        `json:"invariants"`
	Violations   int           `json:"violations"`
	Growth       []Growth      `json:"growth,omitempty"`
	Grown        []string      `json:"grown,omitempty"` // what is over its limit, or was not proven to be below
	Notes        []string      `json:"notes,omitempty"`
	Meaningless  string        `json:"meaningless,omitempty"` // why the run proves nothing
}

// Good says whether nothing was violated by a run that means something.
func (r *Report) Good() bool { return r.Violations == 0 && r.Meaningless == "" && len(r.Grown) == 0 }

const (
	// Less traffic than this proves nothing.
	minRequests = 100 // of all clients, for each scenario
	minWrites   = 50
	minOps      = 40
)

// finish fills in what follows from the parts.
func (r *run) finish() {
	rep := r.report
	rep.Took = time.Since(r.began)
	total := map[string]*Tally{}
	requests, faults := 0, 0
	effects := map[string]uint64{}
	var idle []string
	for _, p := range rep.Parts {
		for _, t := range p.Clients {
			if total[t.Client] == nil {
				total[t.Client] = &Tally{}
			}
			total[t.Client].add(t)
			requests += t.Requests
		}
		faults += p.Faults
		effects[p.Scenario] += min(p.Effect, uint64(p.Faults)<<32) // none without a fault
	}
	for name, n := range effects {
		if n == 0 {
			idle = append(idle, name)
		}
	}
	for _, t := range total {
		rep.Clients = append(rep.Clients, *t)
	}
	slices.SortFunc(rep.Clients, func(a, b Tally) int { return strings.Compare(a.Client, b.Client) })
	unchecked, undone := r.unchecked(), r.undone()
	rep.Rules, rep.Notes = r.wrong.list()
	rep.Violations = r.wrong.violations()
	checked, missed := r.load.kv.counts()
	rep.Acknowledged = checked
	for _, p := range rep.Parts {
		rep.Acknowledged += p.Notes
	}
	for _, rule := range rep.Rules {
		if rule.Name == durableRule || rule.Name == noteRule {
			rep.Lost += rule.Violations
		}
	}
	r.growth()
	switch n := len(rep.Parts); {
	case n == 0 || faults == 0:
		rep.Meaningless = "no fault was made"
	case len(idle) > 0:
		rep.Meaningless = "no fault had an effect in " + strings.Join(idle, ", ")
	case undone != "":
		rep.Meaningless = "a step was never carried out: " + undone
	case unchecked != "":
		rep.Meaningless = "it was hardly looked at whether: " + unchecked
	case missed > 0:
		rep.Meaningless = fmt.Sprintf("%d acknowledged writes could not be read back", missed)
	case requests < n*minRequests:
		rep.Meaningless = fmt.Sprintf("only %d requests were made", requests)
	case rep.Acknowledged < n*minWrites:
		rep.Meaningless = fmt.Sprintf("only %d writes were acknowledged", rep.Acknowledged)
	case r.load.lin.count() < n*minOps:
		rep.Meaningless = fmt.Sprintf("the history of the keys has only %d operations with a known outcome", r.load.lin.count())
	}
}

// perScenario are the rules that must have been looked at once for each
// scenario, on average.
var perScenario = []string{durableRule, noteRule, linearRule, leaseRule, ownerRule, containerRule, commitRule, vipRule, auditRule, targetRule, hashRule, alarmRule}

// unchecked names a rule that was not looked at enough.
func (r *run) unchecked() string {
	for _, rule := range perScenario {
		if r.wrong.checks(rule) < len(r.report.Parts) {
			return rule
		}
	}
	if r.wrong.checks(sameRule) == 0 {
		return sameRule
	}
	return ""
}

// Text is the report for people.
func (r *Report) Text() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	ms := func(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }
	fmt.Fprintln(w, "SCENARIO\tFAULTS\tEFFECT\tREQUESTS\tFAILED\tLONGEST GAP (PAGE)\tLONGEST GAP (WRITE)\tAT TARGET AFTER")
	for _, p := range r.Parts {
		requests, failed := 0, 0
		gaps := map[string]time.Duration{}
		for _, t := range p.Clients {
			requests += t.Requests
			failed += t.Failed
			gaps[t.Client] = t.LongestGap
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%s\t%s\t%s\n", p.Scenario, p.Faults, p.Effect, requests, failed, ms(gaps["page"]), ms(gaps["kv write"]), ms(p.Settled))
	}
	fmt.Fprintln(w, "\nCLIENT\tREQUESTS\tFAILED\tLONGEST GAP\tSLOWEST\tFIRST ERROR")
	for _, t := range r.Clients {
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\t%.60s\n", t.Client, t.Requests, t.Failed, ms(t.LongestGap), ms(t.Slowest), t.FirstError)
	}
	fmt.Fprintln(w, "\nINVARIANT\tCHECKS\tVIOLATIONS")
	for _, rule := range r.Rules {
		fmt.Fprintf(w, "%s\t%d\t%d\n", rule.Name, rule.Checks, rule.Violations)
	}
	if len(r.Growth) > 0 {
		fmt.Fprintln(w, "\nPROCESS\tMEMORY\tGROWTH AT LIKE AGE\tMAPPED FILES\tHEAP\tAGE\tGOROUTINES\tFILES\tRESTARTS")
		for _, g := range r.Growth {
			grown := "-"
			if g.Pairs > 0 {
				grown = fmt.Sprintf("%+.1f %% (%d)", g.Memory, g.Pairs)
			}
			fmt.Fprintf(w, "%s\t%d, %d MiB\t%s\t%d, %d MiB\t%d, %d MiB\t%s, %s\t%d, %d\t%d, %d\t%d\n", g.Of, g.First.Memory>>20, g.Last.Memory>>20, grown,
				g.First.Mapped>>20, g.Last.Mapped>>20, g.First.Heap>>20, g.Last.Heap>>20, g.First.Age.Round(time.Second), g.Last.Age.Round(time.Second),
				g.First.Goroutines, g.Last.Goroutines, g.First.Files, g.Last.Files, g.Restarts)
		}
	}
	w.Flush()
	for _, p := range r.Parts {
		for _, h := range p.Handovers {
			fmt.Fprintf(&b, "\n%s: %s handed over after %s; longest gap of writes through another master %s", p.Scenario, h.From, ms(h.Moved), ms(h.Gap))
		}
	}
	for _, rule := range r.Rules {
		for _, e := range rule.Examples {
			fmt.Fprintf(&b, "\nviolated: %s: %s", rule.Name, e)
		}
	}
	for _, n := range append(r.Notes, r.Grown...) {
		fmt.Fprintf(&b, "\nnote: %s", n)
	}
	if r.Meaningless != "" {
		fmt.Fprintf(&b, "\nthe run is meaningless: %s", r.Meaningless)
	}
	fmt.Fprintf(&b, "\n%d acknowledged writes read back, %d lost; %d violations; seed %d; %s", r.Acknowledged, r.Lost, r.Violations, r.Seed, r.Took.Round(time.Second))
	return strings.TrimPrefix(b.String(), "\n")
}
