package node

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"appliance/node/api"
	"appliance/node/model"
	"appliance/node/wire"
	"appliance/node/wire/wiretest"
	"appliance/raft/command"
	"appliance/raft/state"
)

// passing is a master, and an agent whose API passes on what only masters do.
type passing struct {
	master, agent *peerNode
	secrets       map[string]string // API tokens by name
	handler       http.Handler      // the agent's
}

func newPassing(t *testing.T) *passing {
	t.Helper()
	masters, agent, list := newPeers(t, 1)
	p := &passing{master: masters[0], agent: agent, secrets: map[string]string{}}
	now := time.Now().UTC()
	commands := []command.Command{&command.InitCluster{Cluster: model.Cluster{ID: "c1", Name: "house", Level: command.Speaks}}}
	for _, id := range []string{"m0", "a1", "a2"} {
		commands = append(commands, &command.RegisterNode{At: now, Node: model.Node{ID: id, Name: "name-" + id, Level: command.Speaks,
			Role: map[bool]model.Role{true: model.RoleMaster, false: model.RoleAgent}[id == "m0"], Addr: "192.0.2.1", Status: model.NodeReady}})
	}
	for name, policy := range policies {
		secret, tok := newAPIToken(now)
		tok.Name, tok.Policy = name, policy
		if name == "expired" {
			tok.ExpiresAt = now.Add(-time.Second)
		}
		p.secrets[name] = secret
		commands = append(commands, &command.PutAPIToken{Token: tok})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for _, c := range commands {
		if _, err := command.Do(ctx, proposer{p.master.core}, c); err != nil {
			t.Fatal(err)
		}
	}
	n, s := p.agent.server()
	s.Authorize = n.access.API
	s.Pass = p.passer(list).pass
	p.handler = n.onBehalf(s.Handler())
	return p
}

func (p *passing) passer(masters func() []string) *passer {
	return &passer{masters: masters, names: func() []string { return []string{"mm1"} }, known: (&Node{core: p.agent.core, access: access{p.agent.store}}).knownToken, client: wire.NewDialer(p.agent.keys).BulkClient(), slots: make(chan struct{}, 1)}
}

// call asks the agent through its unix socket, or from another address.
func (p *passing) call(from, token, method, path, body string) (*httptest.ResponseRecorder, *model.Error) {
	r := httptest.NewRequest(method, "http://192.0.2.9:8500"+api.Prefix+path, strings.NewReader(body))
	r.RemoteAddr = from
	if from == "" {
		r.RemoteAddr = "@"
		r = r.WithContext(asRoot(r.Context(), nil))
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	p.handler.ServeHTTP(w, r)
	var f api.Failure
	if w.Code != http.StatusOK {
		_ = json.Unmarshal(w.Body.Bytes(), &f)
	}
	return w, f.Error
}

// Operators' requests work on an agent with the token that allows them, and
// with nothing else: neither root of the agent nor its certificate does.
func TestAgentPassesOnWhatATokenAllows(t *testing.T) {
	p := newPassing(t)
	const socket, local, remote = "", "127.0.0.1:5555", "10.1.2.3:5555"
	drain, token := `{"node": "name-a2", "drain": true}`, `{"name": "made"}`
	cases := []struct {
		name, from, token, method, path, body string
		why                                   string // "" means that it is done
	}{
		{"drain with an operator's token", socket, "operator", "POST", "/drain", drain, ""},
		{"the same from another machine", remote, "operator", "POST", "/drain", drain, ""},
		{"a token with an operator's token", local, "operator", "POST", "/tokens/api", token, ""},
		{"environments", socket, "operator", "POST", "/environments", `{"name": "staging"}`, ""},
		{"forgetting a node asks for its risk", socket, "operator", "DELETE", "/nodes/name-a9", "", "there is no node name-a9"},
		{"a reader's token", socket, "reader", "POST", "/drain", drain, "this is for operators"},
		{"a deployer's token", local, "ci", "POST", "/tokens/api", token, "this is for operators"},
		{"an expired token", socket, "expired", "POST", "/drain", drain, "the token is not valid"},
		{"an unknown token", socket, "unknown", "POST", "/drain", drain, "the token is not valid"},
		{"root without a token", socket, "", "POST", "/drain", drain, "APPLIANCE_TOKEN"},
		{"loopback without a token", local, "", "DELETE", "/secrets/x?env=test", "", "run it on a master (mm1)"},
		{"a field that is not known", socket, "operator", "POST", "/drain", `{"nodes": ""}`, "the request cannot be read"},
		{"a secret that others can read", remote, "operator", "POST", "/secrets", `{"name": "x", "value": "eA=="}`, "unencrypted"},
	}
	p.secrets["unknown"] = "appl_x_y"
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			before := p.master.store.Index()
			w, err := p.call(c.from, p.secrets[c.token], c.method, c.path, c.body)
			switch {
			case c.why == "" && w.Code != http.StatusOK:
				t.Fatalf("%d %s", w.Code, w.Body)
			case c.why != "" && (err == nil || !strings.Contains(err.What+err.Why+err.Fix, c.why)):
				t.Fatalf("%d %s, want %q", w.Code, w.Body, c.why)
			case c.why != "" && p.master.store.Index() != before:
				t.Error("something was changed")
			}
		})
	}
	snap := p.master.store.Snapshot()
	if !state.Nodes.Get(snap, "a2").Drain {
		t.Error("a2 does not drain")
	}
	if r := state.Audit.Last(snap); r == nil || !strings.Contains(r.Actor.Who, "(operator)") || r.Actor.Node != "m0" ||
		!strings.HasSuffix(r.Actor.From, " by a1") || !strings.HasPrefix(r.Actor.Via, "POST "+api.Prefix) {
		t.Errorf("the audit log says %+v", r)
	}
}

// Who has no token that is known takes no place, and does not get to send a body slowly.
func TestUnknownTokensKeepNobodyOut(t *testing.T) {
	p := newPassing(t)
	body, w := io.Pipe() // never written
	defer w.Close()
	r := httptest.NewRequest("POST", "http://192.0.2.9:8500"+api.Prefix+"/drain", body)
	r.Header.Set("Authorization", "Bearer appl_x_y")
	done := make(chan int, 1)
	go func() {
		w := httptest.NewRecorder()
		p.handler.ServeHTTP(w, r)
		done <- w.Code
	}()
	select {
	case code := <-done:
		if code != http.StatusForbidden {
			t.Errorf("answered %d", code)
		}
	case <-time.After(20 * time.Second):
		t.Error("it waits for the body")
	}
}

// Masters do not count an agent's loopback as their own, nor its certificate as a right.
func TestPassedRequestsHaveNoRightsOfTheirOwn(t *testing.T) {
	p := newPassing(t)
	client := wire.NewDialer(p.agent.keys).Client()
	for path, body := range map[string]string{"/scale": `{"app": "web", "env": "test", "instances": 1}`, "/drain": `{"node": "name-a2", "drain": true}`, "/leave": `{}`} {
		resp, err := client.Post("https://"+p.master.addr+pathPassed+api.Prefix+path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
}

// Snapshot files pass whole, in both directions.
func TestAgentPassesARestoreOn(t *testing.T) {
	p := newPassing(t)
	big := strings.Repeat("x", 300<<10) // more than one piece
	for i := range 5 {
		key := string(rune('a' + i))
		if _, err := command.Do(t.Context(), proposer{p.master.core}, &command.KVTxn{Ops: []command.KVOp{{Verb: "set", Key: key, Value: []byte(big + key)}}}); err != nil {
			t.Fatal(err)
		}
	}
	w, _ := p.call("10.1.2.3:5555", p.secrets["operator"], "GET", "/snapshot", "")
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	file := w.Body.Bytes()
	if _, err := command.Do(t.Context(), proposer{p.master.core}, &command.KVTxn{Ops: []command.KVOp{{Verb: "delete", Key: "a"}}}); err != nil {
		t.Fatal(err)
	}
	restore := "/snapshot/restore?accept-risk=" + api.RiskReplaceState
	if w, _ := p.call("", p.secrets["operator"], "POST", restore, string(bytes.Replace(file, []byte("x"), []byte("y"), 1))); w.Code == http.StatusOK {
		t.Error("a damaged file was taken")
	}
	if w, _ := p.call("", p.secrets["operator"], "POST", restore, string(file)); w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if kv := state.KVs.Get(p.master.store.Snapshot(), "a"); kv == nil || string(kv.Value) != big+"a" {
		t.Error("the key is not back")
	}
}

// A master that is not there costs nothing; one that was asked and fails is
// not asked again, for it may have done it.
func TestPassingGoesToAMasterThatIsThere(t *testing.T) {
	p := newPassing(t)
	n, s := p.agent.server()
	ask := func(masters ...string) *model.Error {
		s.Pass = p.passer(func() []string { return masters }).pass
		p.handler = n.onBehalf(s.Handler())
		_, err := p.call("", p.secrets["operator"], "POST", "/drain", `{"node": "name-a2", "drain": true}`)
		return err
	}
	ln := wiretest.Listen(t)
	ln.Close()
	dead := ln.Addr().String()
	if err := ask(dead, p.master.addr); err != nil {
		t.Error(err)
	}
	if err := ask(dead); err == nil || err.Code != model.CodeUnavailable || !strings.Contains(err.Why, "nothing was changed") {
		t.Errorf("got %v", err)
	}
	broken := p.otherMaster(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	if err := ask(broken, p.master.addr); err == nil || !strings.Contains(err.What, "not known whether") {
		t.Errorf("got %v", err)
	}
	if err := ask(p.otherMaster(t, http.NotFound)); err == nil || !strings.Contains(err.Why, "older version") {
		t.Errorf("got %v", err)
	}
}

// otherMaster serves in its own way what is passed on.
func (p *passing) otherMaster(t *testing.T, h http.HandlerFunc) (addr string) {
	t.Helper()
	srv := wire.NewServer(p.master.keys, quiet())
	srv.HandleHTTP(h)
	ln := wiretest.Listen(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Run(ctx, ln) }()
	t.Cleanup(func() { cancel(); <-done })
	return ln.Addr().String()
}
