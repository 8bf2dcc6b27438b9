package api_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"appliance/discovery/discoverytest"
	"appliance/node/api"
	"appliance/node/model"
	"appliance/raft/archive"
	"appliance/raft/command"
	"appliance/raft/state"
)

func (h *house) send(method, path string, body []byte) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.server.Handler().ServeHTTP(w, httptest.NewRequest(method, api.Prefix+path, bytes.NewReader(body)))
	return w
}

func TestSnapshotIsSavedAndRestored(t *testing.T) {
	h := newHouse(t)
	h.server.Term = func() uint64 { return 7 }
	w := h.send("GET", "/snapshot", nil)
	file := w.Body.Bytes()
	head, err := archive.Verify(bytes.NewReader(file), int64(len(file)))
	if w.Code != 200 || err != nil || head.Term != 7 || head.Cluster != "c1" {
		t.Fatalf("%d %v %+v", w.Code, err, head)
	}
	h.Must(&command.KVTxn{Ops: []command.KVOp{{Verb: "set", Key: "late"}}})
	if w := h.send("POST", "/snapshot/restore", file); w.Code != 400 {
		t.Errorf("without a word on the risk: %d", w.Code)
	}
	bad := bytes.Clone(file)
	bad[len(bad)/2] ^= 1
	before := h.Store.Index()
	if w := h.send("POST", "/snapshot/restore?accept-risk=replace-state", bad); w.Code != 400 || h.Store.Index() != before {
		t.Errorf("damaged: %d %s, index %d -> %d", w.Code, w.Body, before, h.Store.Index())
	}
	w = h.send("POST", "/snapshot/restore?accept-risk=replace-state", file)
	var out api.RestoredSnapshot
	if err := json.Unmarshal(w.Body.Bytes(), &out); w.Code != 200 || err != nil || out.Header.Index != head.Index || out.Index <= before {
		t.Fatalf("%d %s %v", w.Code, w.Body, err)
	}
	if state.KVs.Get(h.Store.Snapshot(), "late") != nil {
		t.Error("what came after the snapshot is still there")
	}
	if w := h.send("POST", "/snapshot/restore?accept-risk=other-cluster", file); w.Code != 400 {
		t.Errorf("the cluster's own file as another's: %d %s", w.Code, w.Body)
	}
	for _, need := range h.needs {
		if !need.Operator {
			t.Errorf("asked for %+v only", need)
		}
	}
	h.deny = model.Errorf(model.CodeDenied, "no")
	for _, w := range []*httptest.ResponseRecorder{h.send("GET", "/snapshot", nil), h.send("POST", "/snapshot/restore", nil), h.send("GET", "/audit", nil)} {
		if w.Code != http.StatusForbidden {
			t.Errorf("denied request got %d", w.Code)
		}
	}
}

func TestAuditAnswersTheNewestRecords(t *testing.T) {
	h := newHouse(t)
	for _, name := range []string{"a", "b", "c"} {
		env := &command.PutEnvironment{Environment: model.Environment{Name: name}}
		h.Must(command.Audit(env, model.Actor{Who: "root"}, discoverytest.Start))
	}
	var all, two api.AuditLog
	for path, out := range map[string]*api.AuditLog{"/audit": &all, "/audit?limit=2": &two} {
		if err := json.Unmarshal(h.send("GET", path, nil).Body.Bytes(), out); err != nil {
			t.Fatal(err)
		}
	}
	if len(all.Records) != 3 || len(two.Records) != 2 || two.Records[0].Subject != "b" {
		t.Fatalf("got %+v and %+v", all, two)
	}
	if bad := model.VerifyAudit(all.Records, all.Bound); bad != nil {
		t.Error(bad)
	}
}
