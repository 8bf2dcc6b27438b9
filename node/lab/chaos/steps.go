package chaos

import (
	"context"
	"fmt"
	"strings"
	"time"

	"appliance/node/model"
)

// stepKey names a step of a scenario.
type stepKey struct {
	scenario string
	at       time.Duration
	do, on   string
}

// stepTally is what became of a step in all of a run.
type stepTally struct {
	done    int
	refusal string // the last one
}

// tell notes what became of a step.
func (r *run) tell(scenario string, st Step, err error) {
	k := stepKey{scenario, st.At, st.Do, st.On}
	if r.steps == nil {
		r.steps = map[stepKey]*stepTally{}
	}
	t := r.steps[k]
	if t == nil {
		t = &stepTally{}
		r.steps[k] = t
		r.asked = append(r.asked, k)
	}
	if err == nil {
		t.done++
	} else {
		t.refusal = err.Error()
	}
}

// undone names the first step that was never carried out: what its scenario is
// about was not tried.
func (r *run) undone() string {
	for _, k := range r.asked {
		if t := r.steps[k]; t.done == 0 {
			return fmt.Sprintf("%s of %s: %s", strings.TrimSpace(k.do+" "+k.on), k.scenario, t.refusal)
		}
	}
	return ""
}

const (
	// insistTime is for how long a refused step is tried: the machine of an
	// earlier step may just be coming back, or a leader being elected.
	insistTime  = 3 * time.Second
	insistEvery = 500 * time.Millisecond
)

// insist carries a step out, and tries again while it is refused.
func (r *run) insist(ctx context.Context, st Step) (Active, error) {
	for ends := time.Now().Add(insistTime); ; pause(ctx, insistEvery) {
		next, nextM := r.next, r.nextM
		a, err := r.step(ctx, st)
		if err == nil || ctx.Err() != nil || !refused(err) || time.Now().After(ends) {
			return a, err
		}
		r.next, r.nextM = next, nextM // it is still that machine's turn
	}
}

// refused says whether nothing was done because of what the cluster is in.
func refused(err error) bool {
	code := model.CodeOf(err)
	return code == model.CodeConflict || code == model.CodeUnavailable
}
