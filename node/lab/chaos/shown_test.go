package chaos

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"appliance/node/api"
	"appliance/node/doctor"
	"appliance/node/lab/fault"
)

// tells is a node that answers as it says, from some time on.
type tells struct {
	from    time.Time
	matrix  api.Net
	reports []doctor.Finding
}

func (n *tells) RoundTrip(req *http.Request) (*http.Response, error) {
	var v any
	switch late := time.Now().Before(n.from); {
	case strings.HasSuffix(req.URL.Path, "/net") && !late:
		v = n.matrix
	case strings.HasSuffix(req.URL.Path, "/net"):
		v = api.Net{}
	default:
		v = doctor.Report{Findings: n.reports}
	}
	text, err := json.Marshal(v)
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(string(text)))}, err
}

func TestFaultsThatNobodyShowsAreFound(t *testing.T) {
	const text = "what mm1 sends to ms1 is lost"
	link := func(kind, from, to string) api.Net {
		return api.Net{Faults: []api.NetFault{{Kind: kind, From: from, To: to, What: text}}}
	}
	clocks := func(ms float64) api.Net { return api.Net{Nodes: []api.NetNode{{Name: "mm1", ClockMS: &ms}}} }
	broken := []doctor.Finding{{Code: doctor.BrokenLink, What: text}}
	off := []doctor.Finding{{Code: doctor.ClockOffset, Node: "mm1"}}
	oneWay := Active{Machines: []string{"ms1"}, groups: [][]string{{"mm1"}, {"ms1"}}}
	clock := Active{Machines: []string{"mm1"}, groups: [][]string{{"mm1"}}, offset: 2 * time.Minute}
	for _, tt := range []struct {
		name  string
		kind  string
		fault Active
		at    string // the node that tells
		says  tells
		after time.Duration
		ok    bool
	}{
		{"the side that hears tells", OneWay, oneWay, "mm1", tells{matrix: link("one-way", "mm1", "ms1"), reports: broken}, 5 * time.Second, true},
		{"the other side cannot know", OneWay, oneWay, "ms1", tells{matrix: link("one-way", "mm1", "ms1"), reports: broken}, 0, false},
		{"too late", OneWay, oneWay, "mm1", tells{matrix: link("one-way", "mm1", "ms1"), reports: broken}, shownTime, false},
		{"the other direction", OneWay, oneWay, "mm1", tells{matrix: link("one-way", "ms1", "mm1"), reports: broken}, 0, false},
		{"cut is not one-way", OneWay, oneWay, "mm1", tells{matrix: link("cut", "mm1", "ms1"), reports: broken}, 0, false},
		{"the doctor is silent", OneWay, oneWay, "mm1", tells{matrix: link("one-way", "mm1", "ms1")}, 0, false},
		{"the doctor speaks of another link", OneWay, oneWay, "mm1", tells{matrix: link("one-way", "mm1", "ms1"), reports: []doctor.Finding{{Code: doctor.BrokenLink, What: "another"}}}, 0, false},
		{"a clock", fault.Clock, clock, "mm2", tells{matrix: clocks(120_100), reports: off}, 5 * time.Second, true},
		{"a clock on the wrong side", fault.Clock, clock, "mm2", tells{matrix: clocks(-120_000), reports: off}, 0, false},
		{"a clock that is right", fault.Clock, clock, "mm2", tells{matrix: clocks(3), reports: off}, 0, false},
		{"the doctor says nothing of the clock", fault.Clock, clock, "mm2", tells{matrix: clocks(120_000), reports: broken}, 0, false},
		{"the doctor names another machine", fault.Clock, clock, "mm2", tells{matrix: clocks(120_000), reports: []doctor.Finding{{Code: doctor.ClockOffset, Node: "mm2"}}}, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tt.says.from, tt.fault.Until = time.Now().Add(tt.after), time.Now().Add(time.Minute)
				r := &run{o: Options{Out: io.Discard}, wrong: newVerdicts(t.Logf), load: &load{nodes: []*node{{tt.at, &http.Client{Transport: &tt.says}}}}}
				r.shown(t.Context(), tt.kind, tt.fault)
				if got := r.wrong.violations() == 0; got != tt.ok || r.wrong.checks(shownRule) != 1 {
					t.Errorf("shown: %v, want %v", got, tt.ok)
				}
			})
		})
	}
}

func TestScenariosLeaveTimeToShow(t *testing.T) {
	found := map[string]bool{}
	for _, sc := range Scenarios {
		for _, st := range sc.Steps {
			if !st.Shown {
				continue
			}
			found[st.Do] = true
			if st.For < shownTime || st.Do != OneWay && st.Do != fault.Clock {
				t.Errorf("%s: %s for %s cannot be shown", sc.Name, st.Do, st.For)
			}
		}
	}
	if !found[OneWay] || !found[fault.Clock] {
		t.Errorf("only %v must be shown", found)
	}
}
