package story

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"appliance/node/lab"
)

// Row is one line of the bench: what was measured against what is wanted.
type Row struct {
	What     string  `json:"what"`
	Measured float64 `json:"measured"`
	Floor    float64 `json:"floor,omitempty"` // worse fails the bench; 0 with Zero unset: none
	Goal     float64 `json:"goal,omitempty"`
	Unit     string  `json:"unit"`           // s, /s, MB or requests
	More     bool    `json:"more,omitempty"` // more is better; otherwise less is
	Bounded  bool    `json:"bounded"`        // floor and goal count, also if they are 0
	Verdict  string  `json:"verdict"`        // goal, floor, missed; "-" if nothing was promised
	Note     string  `json:"note,omitempty"`
}

// judge fills in the verdict.
func (r *Row) judge() {
	better := func(bound float64) bool {
		if r.More {
			return r.Measured >= bound
		}
		return r.Measured <= bound
	}
	switch {
	case !r.Bounded:
		r.Verdict = "-"
	case better(r.Goal):
		r.Verdict = "goal"
	case better(r.Floor):
		r.Verdict = "floor"
	default:
		r.Verdict = "missed"
	}
}

// Bench is a run of all measurements.
type Bench struct {
	Conditions Conditions `json:"conditions"`
	Rows       []Row      `json:"rows"`
	s          *Story
	progress   io.Writer
}

// ErrFloor says that a measurement is below what the product must reach.
var ErrFloor = errors.New("a floor is missed")

// The sizes of the measurements: large enough to say something about the
// tail, small enough to wait for.
const (
	benchDeploys = 20
	benchLeaders = 10
	benchVIPs    = 3
	benchAgents  = 3
	benchChanges = 100
)

// RunBench starts a lab, measures everything and removes the lab. Progress
// gets a line per measurement.
func RunBench(ctx context.Context, o Options, progress io.Writer) (*Bench, error) {
	o.Out, o.Terminal = io.Discard, false
	s, err := New(o)
	if err != nil {
		return nil, err
	}
	b := &Bench{s: s, progress: progress, Conditions: conditions(o.Dir)}
	defer func() {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), stepTime)
		defer cancel()
		if err := lab.Down(clean, lab.Options{Dir: s.o.Dir, Name: s.o.Name}); err != nil {
			fmt.Fprintln(progress, "the lab is not removed:", err)
		}
	}()
	for _, m := range []struct {
		what string
		run  func(context.Context) error
	}{
		{"binary size", b.binary},
		{"starting the lab", s.machines},
		{"memory of idle nodes", b.memory},
		{"restore of a large state", b.restore},
		{"durable writes", b.writes},
		{"DNS answers", b.dns},
		{"catalog changes", b.catalog},
		{"building and deploying the app", func(ctx context.Context) error { return errors.Join(s.image(ctx), s.deploy(ctx)) }},
		{"rolling deployments under load", b.deployments},
		{"leader losses", b.leaders},
		{"VIP handovers", b.vips},
		{"agent losses", b.agents},
	} {
		fmt.Fprintf(progress, "measuring: %s\n", m.what)
		if err := m.run(ctx); err != nil {
			return b, fmt.Errorf("%s: %w", m.what, err)
		}
	}
	for _, r := range b.Rows {
		if r.Verdict == "missed" {
			return b, ErrFloor
		}
	}
	return b, nil
}

func (b *Bench) add(r Row) {
	r.judge()
	b.Rows = append(b.Rows, r)
	fmt.Fprintf(b.progress, "  %s: %s\n", r.What, r.value(r.Measured))
}

// less adds a row of which less is better.
func (b *Bench) less(what, unit string, measured, floor, goal float64, note string) {
	b.add(Row{What: what, Unit: unit, Measured: measured, Floor: floor, Goal: goal, Bounded: true, Note: note})
}

// more adds a row of which more is better.
func (b *Bench) more(what, unit string, measured, floor, goal float64, note string) {
	b.add(Row{What: what, Unit: unit, Measured: measured, Floor: floor, Goal: goal, Bounded: true, More: true, Note: note})
}

// info adds a row that nothing is promised for.
func (b *Bench) info(what, unit string, measured float64, note string) {
	b.add(Row{What: what, Unit: unit, Measured: measured, Note: note})
}

// quantile is the smallest value that is not exceeded by the share q, in
// seconds. Of few values it is the worst.
func quantile(list []time.Duration, q float64) float64 {
	if len(list) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(list))
	i := int(math.Ceil(q*float64(len(sorted)))) - 1
	return sorted[max(0, i)].Seconds()
}
