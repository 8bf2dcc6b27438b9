package chaos

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"appliance/node/api"
)

// master is one that knows a leader, and acknowledges nothing for a while.
type master struct {
	born          time.Time
	moves, writes time.Duration // when it leads, and when it acknowledges again
}

func (m master) RoundTrip(req *http.Request) (*http.Response, error) {
	age := time.Since(m.born)
	text := `{"leader":"mm1"}`
	switch {
	case req.Method == http.MethodPut && age < m.writes:
		<-req.Context().Done()
		return nil, errors.New("no answer")
	case req.Method == http.MethodPut:
		text = "true"
	case age >= m.moves:
		text = `{"leader":"mm2"}`
	}
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(text))}, nil
}

func TestLeadersThatKeepLeadingAreFound(t *testing.T) {
	const s = time.Second
	for _, tt := range []struct {
		name          string
		moves, writes time.Duration
		want          string
	}{
		{"another one led already", 0, 0, "not led"},
		{"in time", 2 * s, 3 * s, ""},
		{"never", time.Hour, 0, "went on leading"},
		{"too late", 6 * s, 0, "led for another"},
		{"writes are away too long", s, 5*s + 500*time.Millisecond, "no write through another master"},
		{"writes never come back", s, time.Hour, "no write through another master"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 8*s)
				defer cancel()
				h := Handover{From: "mm1"}
				h.watch(ctx, []*node{{"mm2", &http.Client{Transport: master{time.Now(), tt.moves, tt.writes}}}})
				if !h.led() {
					if tt.want != "not led" {
						t.Error("it did not lead")
					}
					return
				}
				wrong := newVerdicts(t.Logf)
				h.judge(wrong)
				rules, _ := wrong.list()
				said := strings.Join(rules[0].Examples, "; ")
				if tt.want == "" && said != "" || !strings.Contains(said, tt.want) {
					t.Errorf("said %q, want %q", said, tt.want)
				}
			})
		})
	}
}

func TestOldLeaders(t *testing.T) {
	for text, ok := range map[string]bool{
		`{"fresh":true,"leader":"mm2","index":9}`: true,
		`{"fresh":true,"leader":"mm2","index":8}`: false,
		`{"fresh":true,"leader":"mm1","index":9}`: false,
		`{"fresh":true,"index":9}`:                false,
		`{"leader":"mm2","index":9}`:              false,
	} {
		n := &node{"mm1", &http.Client{Transport: answers(text)}}
		if err := n.behind(t.Context(), api.Status{Index: 9}); (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
}
