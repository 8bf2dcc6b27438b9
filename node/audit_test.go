package node

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"appliance/discovery/discoverytest"
	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
)

func TestChangesAreRecordedWithTheirSender(t *testing.T) {
	c := discoverytest.New()
	n := &Node{access: access{c.Store}}
	p := auditor{c, "n1"}
	c.Must(&command.PutAPIToken{Token: model.APIToken{ID: "id1", Name: "ci", Hash: hashSecret("s3cret")}})
	change := n.onBehalf(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, c := range []command.Command{&command.PutEnvironment{Environment: model.Environment{Name: "e"}}, &command.RenewSession{}} {
			if _, err := p.Propose(r.Context(), c); err != nil {
				t.Error(err)
			}
		}
	}))
	cases := []struct {
		name, from, token, who, origin string
		root                           bool
	}{
		{name: "unix socket", from: "@", root: true, who: "root", origin: "unix socket"},
		{name: "this machine", from: "127.0.0.1:9", who: "loopback", origin: "127.0.0.1:9"},
		{name: "token", from: "192.0.2.7:9", token: "appl_id1_s3cret", who: "token id1 (ci)", origin: "192.0.2.7:9"},
		{name: "bad token", from: "192.0.2.7:9", token: "appl_id1_no", who: "anonymous", origin: "192.0.2.7:9"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			r := httptest.NewRequest("PUT", "/v1/x?token=no", nil)
			r.RemoteAddr = tc.from
			r.Header.Set("X-Consul-Token", tc.token)
			if tc.root {
				r = r.WithContext(asRoot(r.Context(), nil))
			}
			before := state.Audit.Count(c.Store.Snapshot())
			change.ServeHTTP(httptest.NewRecorder(), r)
			got := state.Audit.Last(c.Store.Snapshot())
			want := model.Actor{Who: tc.who, From: tc.origin, Node: "n1", Via: "PUT /v1/x"}
			if got.Actor != want || got.What != "PutEnvironment" || state.Audit.Count(c.Store.Snapshot()) != before+1 {
				t.Errorf("got %+v", got)
			}
		})
	}
	before := state.Audit.Count(c.Store.Snapshot())
	if _, err := p.Propose(context.Background(), &command.PutEnvironment{}); err != nil || state.Audit.Count(c.Store.Snapshot()) != before {
		t.Errorf("a change of the node's own was recorded: %v", err)
	}
}

func TestSenderIsPassedOnToTheLeader(t *testing.T) {
	n := &Node{access: access{state.New()}}
	var got model.Actor
	leader := passedOn(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got, _ = actorOf(r.Context()) }))
	master := n.onBehalf(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := httptest.NewRequest("POST", "/rpc/x", nil)
		passOn(r.Context(), out.Header)
		leader.ServeHTTP(w, out)
	}))
	r := httptest.NewRequest("POST", "/x", nil)
	r.RemoteAddr = "127.0.0.1:5"
	r.Header.Set(headerWho, "root")
	master.ServeHTTP(httptest.NewRecorder(), r)
	if got.Who != "loopback" || got.From != "127.0.0.1:5" {
		t.Errorf("got %+v", got)
	}
}

// readAudit reads all files of a master.
func readAudit(t *testing.T, dir string) (out []model.AuditRecord) {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	for _, path := range files {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(raw) {
			var r model.AuditRecord
			if err := json.Unmarshal(line, &r); err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			out = append(out, r)
		}
	}
	return out
}

func TestAuditFilesKeepEveryRecord(t *testing.T) {
	c := discoverytest.New()
	dir := t.TempDir()
	add := func(n int) {
		for range n {
			c.Must(command.Audit(&command.PutEnvironment{Environment: model.Environment{Name: "e"}}, model.Actor{Who: "root"}, discoverytest.Start))
		}
	}
	write := func() {
		t.Helper()
		a := &auditFile{dir: dir, store: c.Store, each: 10, log: quiet()}
		if err := a.open(); err != nil {
			t.Fatal(err)
		}
		if err := a.write(c.Store.Snapshot()); err != nil {
			t.Fatal(err)
		}
	}
	check := func(want int) {
		t.Helper()
		got := readAudit(t, dir)
		if len(got) != want {
			t.Fatalf("files have %d records, want %d", len(got), want)
		}
		if bad := model.VerifyAudit(got, 0); bad != nil {
			t.Fatal(bad)
		}
	}
	write()
	add(3)
	write()
	write()
	check(3)
	first := filepath.Join(dir, "00000000000000000001.jsonl")
	raw, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(first, raw[:len(raw)-20], 0o600); err != nil { // a crash in the middle of a line
		t.Fatal(err)
	}
	add(2)
	write()
	check(5)
	add(10)
	write()
	check(15)
	if files, _ := filepath.Glob(filepath.Join(dir, "*")); len(files) != 2 || !strings.HasSuffix(files[1], "00011.jsonl") {
		t.Errorf("files are %v", files)
	}
}

func TestAuditFilesFollowTheState(t *testing.T) {
	c := discoverytest.New()
	a := &auditFile{dir: filepath.Join(t.TempDir(), "audit"), store: c.Store, each: 10, log: quiet()}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- a.Run(ctx) }()
	c.Must(command.Audit(&command.PutEnvironment{Environment: model.Environment{Name: "e"}}, model.Actor{Who: "root"}, discoverytest.Start))
	for end := time.Now().Add(10 * time.Second); len(readAudit(t, a.dir)) == 0 && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
	}
	cancel()
	if err := <-done; err != nil || len(readAudit(t, a.dir)) != 1 {
		t.Errorf("%v, %d records", err, len(readAudit(t, a.dir)))
	}
}
