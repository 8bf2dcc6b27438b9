package chaos

import (
	"errors"
	"strings"
	"testing"
	"time"

	"appliance/node/lab/fault"
	"appliance/node/model"
)

func TestEveryStepIsCarriedOutOnce(t *testing.T) {
	kill := Step{At: time.Second, Every: time.Second, Do: fault.Kill, On: "machine"}
	pause := Step{At: time.Second, Do: fault.Pause, On: "leader"}
	later := Step{At: 2 * time.Second, Do: fault.Pause, On: "leader"}
	no := model.Errorf(model.CodeConflict, "with this fault 1 of 3 masters could still agree")
	type told struct {
		scenario string
		step     Step
		err      error
	}
	for _, tt := range []struct {
		name string
		told []told
		want string // part of what is said
	}{
		{"all are", []told{{"a", kill, nil}, {"a", pause, nil}}, ""},
		{"one is refused now and then", []told{{"a", kill, no}, {"a", kill, nil}, {"a", kill, no}}, ""},
		{"one is always refused", []told{{"a", pause, nil}, {"a", kill, no}, {"a", kill, no}}, "kill machine of a: with this fault 1 of 3"},
		{"it is carried out in another scenario", []told{{"a", kill, no}, {"b", kill, nil}}, "kill machine of a"},
		{"it is carried out at another time of it", []told{{"a", pause, nil}, {"a", later, no}}, "pause leader of a"},
		{"it is carried out in a later round", []told{{"a", pause, no}, {"b", kill, nil}, {"a", pause, nil}}, ""},
		{"it fails for another reason", []told{{"a", pause, errors.New("the service does not run")}}, "the service does not run"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			wrong := newVerdicts(t.Logf)
			part := Part{Scenario: "a", Faults: 1, Effect: 1, Notes: 100, Clients: []Tally{{Client: "page", Requests: 1000}}}
			r := &run{wrong: wrong, report: &Report{Parts: []Part{part}}, load: &load{kv: newDurable(nil, wrong), lin: newLinear(nil, wrong)}}
			r.load.lin.known = 100
			for _, rule := range append(perScenario, sameRule) {
				wrong.check(rule, 1)
			}
			for _, a := range tt.told {
				r.tell(a.scenario, a.step, a.err)
			}
			r.finish()
			if got := r.report.Meaningless; (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) || r.report.Good() != (tt.want == "") {
				t.Errorf("meaningless %q, want %q", got, tt.want)
			}
		})
	}
}
