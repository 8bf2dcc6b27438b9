package api_test

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"appliance/node/api"
	"appliance/node/doctor"
)

// patient is a node that can be examined.
type patient struct{ cluster }

func (patient) Findings() []doctor.Finding {
	return []doctor.Finding{{Code: doctor.ClockOffset, Severity: doctor.Error, Node: "ms1", What: "the clock is <b>off</b>", Fix: "set it"}}
}
func (p patient) Checkup(context.Context) doctor.Report {
	return doctor.Report{Node: "mm1", Checked: []string{"mm1"}, Findings: p.Findings()}
}
func (patient) Net() api.Net {
	return api.Net{Node: "mm1", Faults: []api.NetFault{{From: "mm1", To: "ms1", Kind: "one-way", What: "what mm1 sends to ms1 is lost", Since: time.Now()}}}
}

func TestHealthIsShown(t *testing.T) {
	h := newHouse(t)
	h.server.Cluster = patient{cluster{h}}
	ui, rest := h.server.UI(), h.server.Handler()
	page := httptest.NewRecorder()
	ui.ServeHTTP(page, httptest.NewRequest("GET", "/ui/health", nil))
	for _, want := range []string{"<b>error</b>", "D010", "the clock is &lt;b&gt;off", "set it", "what mm1 sends to ms1 is lost"} {
		if !strings.Contains(page.Body.String(), want) {
			t.Errorf("the page (%d) lacks %q", page.Code, want)
		}
	}
	var r doctor.Report
	rec := httptest.NewRecorder()
	rest.ServeHTTP(rec, httptest.NewRequest("GET", api.Prefix+"/doctor", nil))
	if err := json.Unmarshal(rec.Body.Bytes(), &r); err != nil || !r.Bad() {
		t.Errorf("%d %s: %v", rec.Code, rec.Body, err)
	}
	var st api.Status
	rec = httptest.NewRecorder()
	rest.ServeHTTP(rec, httptest.NewRequest("GET", api.Prefix+"/status", nil))
	if err := json.Unmarshal(rec.Body.Bytes(), &st); err != nil || len(st.Findings) != 1 {
		t.Errorf("%d %s: %v", rec.Code, rec.Body, err)
	}
}
