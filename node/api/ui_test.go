package api_test

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"appliance/discovery/discoverytest"
	"appliance/node/model"
	"appliance/raft/command"
)

func (h *house) page(path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.server.UI().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	return w
}

// evil is what an attacker puts wherever a text is taken.
const evil = `"><script>alert(1)</script>`

// furnish gives the house something of everything, with evil texts.
func furnish(t *testing.T, h *house) {
	t.Helper()
	h.call(t, "POST", "/deploy", `{"app": "web", "env": "test"}`, nil)
	h.Task("t1", "/test/web", "ms1", 31000)
	h.Observe("t1", model.TaskRunning, nil)
	h.Task("t2", "/test/web", "ms2", 31000)
	h.Must(&command.Observe{Node: "id-ms2", Statuses: []model.TaskStatus{{Task: "t2", State: model.TaskFailed, Message: evil, Seq: 9, At: discoverytest.Start}}})
	h.Must(
		&command.Place{Waiting: []model.Waiting{{App: "/test/web", Tasks: 1, Refusals: []model.Refusal{{Node: "id-ms1", Code: model.RefusedCPUs, Detail: evil}}}}},
		&command.PutVolume{Volume: model.Volume{Name: evil, Env: "test", Primary: "id-mm1", InSync: []string{"id-mm1"}}},
		&command.RegisterService{Service: &model.ExternalService{Node: "ms1", NodeAddr: "192.0.2.11", ID: evil, Name: evil, Tags: []string{evil}, Port: 1}},
		&command.RecordEvent{Event: model.Event{At: discoverytest.Start, Kind: evil, Subject: evil, Text: evil}},
		&command.PutManifest{Manifest: model.Manifest{Repo: evil, Digest: digest}, Tags: []string{evil}},
	)
	done := model.Deployment{ID: "d1", Kind: evil, StartedAt: discoverytest.Start}
	h.Must(&command.CreateRelease{Release: model.Release{App: "/test/" + evil, Spec: model.AppSpec{Image: evil, Routes: []model.Route{{Host: evil}}}}, Instances: 1, Deployment: done},
		&command.EndDeployment{ID: "d1", State: model.DeploymentFailed, Why: evil, At: discoverytest.Start.Add(time.Second), Receipt: &model.Receipt{Requests: 7}})
	h.Must(&command.UpdateNode{Node: model.Node{ID: "id-ms1", Name: "ms1", Addr: "192.0.2.11", Attributes: map[string]string{"env": "test", "x": evil}, Runtime: evil}})
}

func TestPagesShowTheCluster(t *testing.T) {
	h := newHouse(t)
	furnish(t, h)
	cases := map[string][]string{
		"/ui/":             {"house", "mm1", "ms2", "silent", "/ui/app/test/web", "app-test", "192.0.2.100", "join"},
		"/ui/apps":         {"/test/web", "1 of 2"},
		"/ui/nodes":        {"ms1", "leader", "VIP", "192.0.2.11"},
		"/ui/app/test/web": {"t1", "t2", "failed", "cpus", "1 instance has no place", "deploy"},
		"/ui/app/test/" + "%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E": {"d1", "failed"},
		"/ui/services":    {"web-test", "192.0.2.11:31000", "passing"},
		"/ui/deployments": {"deploy", "running", "d1", "1s"},
		"/ui/images":      {"web", "latest", digest},
		"/ui/events":      {"deployment", "joined as agent"},
	}
	for path, words := range cases {
		t.Run(path, func(t *testing.T) {
			w := h.page(path)
			body := w.Body.String()
			if w.Code != 200 || !strings.HasSuffix(strings.TrimSpace(body), "</html>") {
				t.Fatalf("%d: %s", w.Code, body)
			}
			for _, word := range words {
				if !strings.Contains(body, word) {
					t.Errorf("%q is not shown", word)
				}
			}
			if strings.Contains(body, "<script>alert") || strings.Contains(body, evil) {
				t.Error("a text became markup")
			}
			if csp := w.Header().Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'self'") || strings.Contains(csp, "unsafe") {
				t.Errorf("policy %q", csp)
			}
			if strings.Contains(body, "<no value>") || strings.Contains(body, " style=") || strings.Contains(body, " onclick=") {
				t.Error("the page has a gap, or something that its own policy forbids")
			}
		})
	}
}

func TestPagesOfAnEmptyHouse(t *testing.T) {
	h := newHouse(t)
	for _, path := range []string{"/ui/", "/ui/apps", "/ui/nodes", "/ui/services", "/ui/deployments", "/ui/images", "/ui/events", "/ui/style.css", "/ui/live.js"} {
		if w := h.page(path); w.Code != 200 {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	for _, path := range []string{"/ui/app/test/web", "/ui/nothing"} {
		if w := h.page(path); w.Code != 404 || strings.Contains(w.Body.String(), "panic") {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}
