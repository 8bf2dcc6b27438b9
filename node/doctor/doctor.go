// Package doctor says what is wrong with a node and with its cluster, before
// it costs something: a code that stays, how bad it is, what, why, and what to
// do.
//
// The checks are pure: a Sample of figures in, findings out. A Board keeps the
// findings of one node over time, so that a figure at a threshold makes one
// warning and not a hundred. The *_linux.go files read the machine.
package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Code names a kind of finding. Numbers are given once and for ever; scripts
// and run books refer to them.
type Code uint16

// String is the form that people read, such as D012.
func (c Code) String() string { return fmt.Sprintf("D%03d", uint16(c)) }

// MarshalText implements encoding.TextMarshaler.
func (c Code) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *Code) UnmarshalText(b []byte) error {
	digits, ok := strings.CutPrefix(string(b), "D")
	n, err := strconv.ParseUint(digits, 10, 16)
	if !ok || err != nil {
		return fmt.Errorf("%q is not a code of the doctor, such as D012", b)
	}
	*c = Code(n)
	return nil
}

// Severity is how bad a finding is.
type Severity string

const (
	Fine    Severity = ""        // no finding
	Warning Severity = "warning" // it works, with less reserve than it should have
	Error   Severity = "error"   // something is lost or will be soon
)

func (s Severity) rank() int { return map[Severity]int{Warning: 1, Error: 2}[s] }

// Worse reports whether s is worse than o.
func (s Severity) Worse(o Severity) bool { return s.rank() > o.rank() }

// Finding is one thing that is wrong.
type Finding struct {
	Code     Code      `json:"code"`
	Severity Severity  `json:"severity"`
	Node     string    `json:"node,omitempty"`    // name; empty: the cluster as a whole
	Subject  string    `json:"subject,omitempty"` // what exactly, if there may be several: a link, a part
	What     string    `json:"what"`
	Why      string    `json:"why,omitempty"`
	Fix      string    `json:"fix,omitempty"`
	Since    time.Time `json:"since,omitzero"`

	// hold is how long it must last before it counts.
	hold time.Duration
}

// Report is the answer of a whole checkup.
type Report struct {
	Node     string    `json:"node"`    // that asked the others
	Checked  []string  `json:"checked"` // names of the nodes that answered
	Checks   []string  `json:"checks"`  // what was looked at
	Findings []Finding `json:"findings"`
}

// Bad reports whether something of severity error was found.
func (r Report) Bad() bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Severity == Error })
}

// Sort puts the worst first, then by node and code.
func Sort(list []Finding) {
	slices.SortStableFunc(list, worstFirst)
}

func worstFirst(a, b Finding) int {
	return cmp.Or(cmp.Compare(b.Severity.rank(), a.Severity.rank()), cmp.Compare(a.Node, b.Node),
		cmp.Compare(a.Code, b.Code), cmp.Compare(a.Subject, b.Subject))
}
