package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"appliance/discovery"
	"appliance/discovery/discoverytest"
	"appliance/node/api"
	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
	"appliance/sched"
)

// house is the API over a state without a log.
type house struct {
	*discoverytest.Cluster
	server *api.Server
	images map[string]map[string]string // digest -> labels
	deny   error                        // what Authorize says
	needs  []api.Need                   // what it was asked
	noSync error
	asOf   time.Time // of what is not confirmed
}

const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// newHouse has a master, two agents of test and one of production, and an
// image that knows how to run.
func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{Cluster: discoverytest.New(), images: map[string]map[string]string{}}
	h.Must(&command.InitCluster{Cluster: model.Cluster{ID: "c1", Name: "house", VIP: "192.0.2.100"}})
	h.Node("mm1", "192.0.2.1", model.RoleMaster)
	h.Node("ms1", "192.0.2.11", model.RoleAgent)
	h.Node("ms2", "192.0.2.12", model.RoleAgent)
	h.Must(&command.RegisterNode{Node: model.Node{ID: "id-ms3", Name: "ms3", Role: model.RoleAgent, Addr: "192.0.2.13", Status: model.NodeReady,
		Attributes: map[string]string{"env": "production"}, Capacity: model.Resources{CPUs: 4, Memory: 4096}}})
	h.push("web", "latest", digest, `{"instances": 2, "ports": [{"containerPort": 8000}], "routes": [{"host": "app-{env}"}]}`)
	log := slog.New(slog.DiscardHandler)
	h.server = &api.Server{Store: h.Store, Cluster: cluster{h}, Images: images{h}, Version: "v1", Log: log,
		Proposer:  &api.Admission{Next: h.Cluster, Store: h.Store, Registry: "127.0.0.1:5000", Admit: sched.Admit},
		Authorize: func(_ *http.Request, n api.Need) error { h.needs = append(h.needs, n); return h.deny }}
	return h
}

func (h *house) push(repo, tag, digest, spec string) {
	h.Must(&command.PutManifest{Manifest: model.Manifest{Repo: repo, Digest: digest, PushedAt: discoverytest.Start}, Tags: []string{tag}})
	if spec != "" {
		h.images[digest] = map[string]string{api.SpecLabel: spec}
	}
}

// cluster is what the API asks of a node.
type cluster struct{ *house }

func (cluster) Self() string                 { return "id-mm1" }
func (cluster) Leader() string               { return "id-mm1" }
func (cluster) Fresh() bool                  { return true }
func (c cluster) Sync(context.Context) error { return c.noSync }
func (cluster) Alive(node string) bool       { return node != "id-ms2" }
func (cluster) VIPHolder() string            { return "id-mm1" }
func (cluster) Votes() []string              { return nil }
func (cluster) Warnings() []string           { return []string{"1 master: <b>join</b> more"} }

func (c cluster) Confirm(context.Context) (time.Time, bool) { return c.asOf, c.noSync == nil }

func (c cluster) Catalog(context.Context) (*discovery.Table, error) {
	return discovery.Catalog(c.Store.Snapshot(), discoverytest.NewLiveness()), nil
}

func (cluster) Logs(_ context.Context, t *model.Task, stream string, follow bool, tail int, w io.Writer) error {
	_, err := io.WriteString(w, t.ID+" "+stream+"\n")
	return err
}

func (cluster) NewJoinToken(role model.Role, now time.Time) (string, model.JoinToken, error) {
	return "join-secret", model.JoinToken{ID: "j1", Role: role, CreatedAt: now}, nil
}

func (cluster) NewAPIToken(now time.Time) (string, model.APIToken, error) {
	return "api-secret", model.APIToken{ID: "a1", CreatedAt: now}, nil
}

type images struct{ *house }

func (i images) Labels(_ context.Context, _, digest string) (map[string]string, error) {
	return i.house.images[digest], nil
}

// call makes one request and decodes the answer into out, if there is one.
func (h *house) call(t *testing.T, method, path, body string, out any) *http.Response {
	t.Helper()
	w := httptest.NewRecorder()
	h.server.Handler().ServeHTTP(w, httptest.NewRequest(method, api.Prefix+path, strings.NewReader(body)))
	resp := w.Result()
	if out != nil {
		if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
	}
	return resp
}

func TestDeployFromTheImage(t *testing.T) {
	h := newHouse(t)
	var acc api.Accepted
	if resp := h.call(t, "POST", "/deploy", `{"app": "web", "env": "test"}`, &acc); resp.StatusCode != 200 {
		t.Fatal(resp.Status)
	}
	if acc.App != "/test/web" || acc.Release != 1 || acc.Digest != digest || acc.Deployment == "" {
		t.Errorf("%+v", acc)
	}
	if want := (api.Need{Write: true, Deploy: "test"}); h.needs[0] != want {
		t.Errorf("it asked for %+v, want %+v", h.needs[0], want)
	}
	var v api.AppView
	h.call(t, "GET", "/apps/test/web", "", &v)
	if v.Instances != 2 || v.Hosts[0] != "app-test" || v.Deploying == nil {
		t.Errorf("%+v", v)
	}
}

func TestPromoteTakesTheDigestAndFillsTheEnvironment(t *testing.T) {
	h := newHouse(t)
	h.call(t, "POST", "/deploy", `{"app": "web", "env": "test"}`, nil)
	var f api.Failure
	if resp := h.call(t, "POST", "/promote", `{"app": "web", "from": "test", "to": "production"}`, &f); resp.StatusCode != 409 {
		t.Errorf("a release that has not proved itself: %s %v", resp.Status, f.Error)
	}
	d := state.Apps.Get(h.Store.Snapshot(), "/test/web").Deployment
	h.Must(&command.EndDeployment{ID: d, State: model.DeploymentSucceeded, At: time.Now()})
	h.push("web", "latest", strings.Replace(digest, "0", "f", 1), "") // the tag moves on
	var acc api.Accepted
	if resp := h.call(t, "POST", "/promote", `{"app": "web", "from": "test", "to": "production"}`, &acc); resp.StatusCode != 200 || acc.Digest != digest {
		t.Errorf("%s %+v", resp.Status, acc)
	}
	var v api.AppView
	h.call(t, "GET", "/apps/production/web", "", &v)
	if v.Hosts[0] != "app-production" || v.Instances != 2 {
		t.Errorf("%+v", v)
	}
}

func TestPromotionMayNeedAReceipt(t *testing.T) {
	h := newHouse(t)
	h.Must(&command.PutEnvironment{Environment: model.Environment{Name: "production", RequireReceipt: true}})
	h.call(t, "POST", "/deploy", `{"app": "web", "env": "test"}`, nil)
	d := state.Apps.Get(h.Store.Snapshot(), "/test/web").Deployment
	end := func(passed bool) {
		h.Must(&command.EndDeployment{ID: d, State: model.DeploymentSucceeded, At: time.Now(), Receipt: &model.Receipt{Passed: passed}})
	}
	end(false)
	if resp := h.call(t, "POST", "/promote", `{"app": "web", "from": "test", "to": "production"}`, nil); resp.StatusCode != 403 {
		t.Error(resp.Status)
	}
	h.call(t, "POST", "/restart", `{"app": "web", "env": "test"}`, nil)
	d = state.Apps.Get(h.Store.Snapshot(), "/test/web").Deployment
	end(true)
	if resp := h.call(t, "POST", "/promote", `{"app": "web", "from": "test", "to": "production"}`, nil); resp.StatusCode != 200 {
		t.Error(resp.Status)
	}
}

// Every refusal says what is wrong by code, and changes nothing.
func TestRefusals(t *testing.T) {
	cases := []struct {
		name, method, path, body string
		status                   int
		code                     model.Code
	}{
		{"unknown field", "POST", "/deploy", `{"app": "web", "env": "test", "imgae": "x"}`, 400, model.CodeInvalid},
		{"unknown field of the spec", "POST", "/deploy", `{"app": "web", "env": "test", "spec": {"instanses": 3}}`, 400, model.CodeInvalid},
		{"no JSON", "POST", "/deploy", `app=web`, 400, model.CodeInvalid},
		{"no body", "POST", "/deploy", ``, 400, model.CodeInvalid},
		{"a second document", "POST", "/deploy", `{"app": "web", "env": "test"} {"app": "web"}`, 400, model.CodeInvalid},
		{"too long", "POST", "/deploy", `{"app": "` + strings.Repeat("x", 2<<20) + `"}`, 400, model.CodeInvalid},
		{"no environment", "POST", "/deploy", `{"app": "web"}`, 400, model.CodeInvalid},
		{"two environments", "POST", "/deploy", `{"app": "/test/web", "env": "production"}`, 400, model.CodeInvalid},
		{"unknown environment", "POST", "/deploy", `{"app": "web", "env": "staging"}`, 404, model.CodeNotFound},
		{"unknown image", "POST", "/deploy", `{"app": "nothing", "env": "test"}`, 404, model.CodeNotFound},
		{"unknown tag", "POST", "/deploy", `{"app": "web", "env": "test", "image": "web:2"}`, 404, model.CodeNotFound},
		{"impossible constraint", "POST", "/deploy", `{"app": "web", "env": "test", "spec": {"image": "web", "constraints": [{"attribute": "x", "operator": "NEAR"}]}}`, 400, model.CodeInvalid},
		{"negative size", "POST", "/deploy", `{"app": "web", "env": "test", "instances": -1}`, 400, model.CodeInvalid},
		{"absurd size", "POST", "/deploy", `{"app": "web", "env": "test", "instances": 1000000}`, 400, model.CodeInvalid},
		{"scale of an unknown app", "POST", "/scale", `{"app": "web", "env": "test", "instances": 1}`, 404, model.CodeNotFound},
		{"rollback of an unknown app", "POST", "/rollback", `{"app": "web", "env": "test"}`, 404, model.CodeNotFound},
		{"restart of an unknown app", "POST", "/restart", `{"app": "web", "env": "test"}`, 404, model.CodeNotFound},
		{"stop of an unknown app", "POST", "/stop", `{"app": "web", "env": "test"}`, 404, model.CodeNotFound},
		{"promote onto itself", "POST", "/promote", `{"app": "web", "from": "test", "to": "test"}`, 400, model.CodeInvalid},
		{"promote an unknown app", "POST", "/promote", `{"app": "web", "from": "test", "to": "production"}`, 404, model.CodeNotFound},
		{"drain of an unknown node", "POST", "/drain", `{"node": "ms9", "drain": true}`, 404, model.CodeNotFound},
		{"environment with a slash", "POST", "/environments", `{"name": "a/b"}`, 400, model.CodeInvalid},
		{"environment with a capital", "POST", "/environments", `{"name": "Test"}`, 400, model.CodeInvalid},
		{"join token for nobody", "POST", "/tokens/join", `{"role": "boss"}`, 400, model.CodeInvalid},
		{"token that is over", "POST", "/tokens/join", `{"role": "agent", "ttl": "-1h"}`, 400, model.CodeInvalid},
		{"API token without a name", "POST", "/tokens/api", `{}`, 400, model.CodeInvalid},
		{"unknown token", "DELETE", "/tokens/x", ``, 404, model.CodeNotFound},
		{"unknown node", "DELETE", "/nodes/ms9", ``, 404, model.CodeNotFound},
		{"unknown volume", "DELETE", "/volumes/x", ``, 404, model.CodeNotFound},
		{"unknown app", "GET", "/apps/test/web", ``, 404, model.CodeNotFound},
		{"unknown task", "GET", "/logs/x", ``, 404, model.CodeNotFound},
		{"unknown deployment", "GET", "/deployments/x", ``, 404, model.CodeNotFound},
		{"progress of an unknown deployment", "GET", "/deployments/x/watch", ``, 404, model.CodeNotFound},
		{"unknown path", "GET", "/appz", ``, 404, model.CodeNotFound},
		{"wrong method", "PATCH", "/deploy", ``, 404, model.CodeNotFound},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t)
			before := h.Store.Index()
			var f api.Failure
			resp := h.call(t, c.method, c.path, c.body, &f)
			if resp.StatusCode != c.status || f.Error == nil || f.Error.Code != c.code {
				t.Errorf("%s %v, want %d %s", resp.Status, f.Error, c.status, c.code)
			}
			if snap := h.Store.Snapshot(); f.Error != nil && h.Store.Index() != before {
				for a := range state.Apps.All(snap) {
					t.Errorf("there is %s now", a.ID)
				}
				for tok := range state.JoinTokens.All(snap) {
					t.Errorf("there is token %s now", tok.ID)
				}
			}
		})
	}
}

func TestNobodyPassesWithoutPermission(t *testing.T) {
	h := newHouse(t)
	h.deny = model.Errorf(model.CodeDenied, "no")
	for _, c := range [][2]string{{"GET", "/status"}, {"GET", "/tokens"}, {"GET", "/logs/x"}, {"GET", "/deployments/x/watch"},
		{"POST", "/deploy"}, {"POST", "/promote"}, {"POST", "/scale"}, {"POST", "/rollback"}, {"POST", "/restart"}, {"POST", "/stop"},
		{"POST", "/drain"}, {"POST", "/environments"}, {"POST", "/tokens/join"}, {"POST", "/tokens/api"},
		{"DELETE", "/tokens/x"}, {"DELETE", "/nodes/ms1"}, {"DELETE", "/volumes/x"}} {
		if resp := h.call(t, c[0], c[1], "{}", nil); resp.StatusCode != 403 {
			t.Errorf("%s %s: %s", c[0], c[1], resp.Status)
		}
	}
	for _, path := range []string{"/ui/", "/ui/apps", "/ui/changes"} {
		if w := h.page(path); w.Code != 403 {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

func TestOperatorsOnly(t *testing.T) {
	h := newHouse(t)
	h.call(t, "GET", "/tokens", "", nil)
	h.call(t, "POST", "/tokens/api", `{"name": "x"}`, nil)
	h.call(t, "POST", "/drain", `{"node": "ms1"}`, nil)
	h.call(t, "DELETE", "/nodes/ms1", "", nil)
	operator := 0
	for _, n := range h.needs {
		if n.Operator {
			operator++
		}
	}
	if operator != 4 {
		t.Errorf("it asked for an operator %d times of 4: %+v", operator, h.needs)
	}
}

func TestSecretsAreShownOnce(t *testing.T) {
	h := newHouse(t)
	var tok api.Token
	h.call(t, "POST", "/tokens/join", `{"role": "agent", "ttl": "1h"}`, &tok)
	if tok.Token != "join-secret" || time.Until(tok.Expires) > time.Hour {
		t.Errorf("%+v", tok)
	}
	h.call(t, "POST", "/tokens/api", `{"name": "ci", "policy": {"deploy": ["test"]}}`, &tok)
	var list []map[string]any
	h.call(t, "GET", "/tokens", "", &list)
	raw, _ := json.Marshal(list)
	if len(list) != 2 || strings.Contains(string(raw), "secret") {
		t.Errorf("%s", raw)
	}
}

func TestRotationEndsTheOtherJoinTokensOfTheRole(t *testing.T) {
	for _, grace := range []time.Duration{0, time.Hour} {
		t.Run(grace.String(), func(t *testing.T) {
			h := newHouse(t)
			end := time.Now().UTC().Add(24 * time.Hour)
			for id, role := range map[string]model.Role{"a1": model.RoleAgent, "a2": model.RoleAgent, "m1": model.RoleMaster} {
				h.Must(&command.PutJoinToken{Token: model.JoinToken{ID: id, Role: role, ExpiresAt: end}})
			}
			token := func(id string) *model.JoinToken { return state.JoinTokens.Get(h.Store.Snapshot(), id) }
			if resp := h.call(t, "POST", "/tokens/join/rotate", `{"role": "agent", "grace": "-1h"}`, nil); resp.StatusCode != 400 || token("a1") == nil {
				t.Errorf("a grace below zero: %s", resp.Status)
			}
			var now api.RotatedToken
			h.call(t, "POST", "/tokens/join/rotate", `{"role": "agent", "grace": "`+grace.String()+`"}`, &now)
			if slices.Sort(now.Revoked); now.Token.Token == "" || token(now.ID) == nil || !slices.Equal(now.Revoked, []string{"a1", "a2"}) {
				t.Fatalf("%+v", now)
			}
			for _, id := range now.Revoked {
				switch old := token(id); {
				case grace == 0 && old != nil:
					t.Errorf("%s is still good", id)
				case grace > 0 && (old == nil || time.Until(old.ExpiresAt) > grace):
					t.Errorf("%s should last for %s: %+v", id, grace, old)
				}
			}
			if m := token("m1"); m == nil || !m.ExpiresAt.Equal(end) {
				t.Errorf("the token of another role: %+v", m)
			}
		})
	}
}

// between makes a change just before the first that is proposed.
type between struct {
	*house
	c    command.Command
	seen []command.Command
}

func (b *between) Propose(ctx context.Context, c command.Command) (command.Result, error) {
	if len(b.seen) == 0 {
		b.Must(b.c)
	}
	b.seen = append(b.seen, c)
	return b.Cluster.Propose(ctx, c)
}

// A rotation is one change, so that no token is left which was made meanwhile,
// and none of its tokens is gone without the new one.
func TestRotationEndsTokensMadeMeanwhile(t *testing.T) {
	h := newHouse(t)
	for i := range 600 {
		h.Must(&command.PutJoinToken{Token: model.JoinToken{ID: fmt.Sprint("old", i), Role: model.RoleAgent}})
	}
	b := &between{house: h, c: &command.PutJoinToken{Token: model.JoinToken{ID: "meanwhile", Role: model.RoleAgent}}}
	h.server.Proposer = b
	var now api.RotatedToken
	if resp := h.call(t, "POST", "/tokens/join/rotate", `{"role": "agent"}`, &now); resp.StatusCode != 200 || len(b.seen) != 1 {
		t.Fatalf("%s, %d changes", resp.Status, len(b.seen))
	}
	if len(now.Revoked) != 601 || !slices.Contains(now.Revoked, "meanwhile") {
		t.Errorf("%d are revoked", len(now.Revoked))
	}
	for tok := range state.JoinTokens.All(h.Store.Snapshot()) {
		if tok.ID != now.ID {
			t.Errorf("%s is still good", tok.ID)
		}
	}
	if level := command.Level(b.seen[0]); level != 2 {
		t.Errorf("it is proposed to clusters of level %d", level)
	}
}

func TestUnreachableLeader(t *testing.T) {
	h := newHouse(t)
	h.noSync = context.DeadlineExceeded
	var f api.Failure
	if resp := h.call(t, "POST", "/deploy", `{"app": "web", "env": "test"}`, &f); resp.StatusCode != 503 || f.Error.Fix == "" {
		t.Errorf("%s %v", resp.Status, f.Error)
	}
	if resp := h.call(t, "GET", "/apps?consistent", "", nil); resp.StatusCode != 503 {
		t.Errorf("consistent read: %s", resp.Status)
	}
}

// Reads are answered whether somebody leads or not, and say which.
func TestReadsSayWhenNobodyConfirmsThem(t *testing.T) {
	asOf := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	cases := []struct {
		name, query string
		leaderless  bool
		asOf        time.Time
		status      int
		stale       string
	}{
		{"default", "", false, asOf, 200, ""},
		{"stale", "?stale", false, asOf, 200, ""},
		{"consistent", "?consistent", false, asOf, 200, ""},
		{"default without a leader", "", true, asOf, 200, "2026-03-04T05:06:07Z"},
		{"default without a leader since the start", "", true, time.Time{}, 200, api.StaleUnknown},
		{"stale without a leader", "?stale", true, asOf, 200, ""},
		{"consistent without a leader", "?consistent", true, asOf, 503, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t)
			h.asOf = c.asOf
			if c.leaderless {
				h.noSync = context.DeadlineExceeded
			}
			for _, path := range []string{"/status", "/apps", "/services", "/tokens", "/secrets", "/audit"} {
				resp := h.call(t, "GET", path+c.query, "", nil)
				if got := resp.Header.Get(api.StaleHeader); resp.StatusCode != c.status || got != c.stale {
					t.Errorf("%s: %s, stale %q", path, resp.Status, got)
				}
			}
		})
	}
}

func TestWatchEndsWithTheDeployment(t *testing.T) {
	h := newHouse(t)
	var acc api.Accepted
	h.call(t, "POST", "/deploy", `{"app": "web", "env": "test"}`, &acc)
	srv := httptest.NewServer(h.server.Handler())
	t.Cleanup(srv.Close)
	resp, err := http.Get(srv.URL + api.Prefix + "/deployments/" + acc.Deployment + "/watch")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := json.NewDecoder(resp.Body)
	var p api.Progress
	if err := lines.Decode(&p); err != nil || p.Done {
		t.Fatalf("%+v: %v", p, err)
	}
	h.Task("t1", "/test/web", "ms1", 31000)
	if err := lines.Decode(&p); err != nil {
		t.Fatal(err)
	}
	h.Must(&command.EndDeployment{ID: acc.Deployment, State: model.DeploymentSucceeded, At: time.Now()})
	for !p.Done {
		if err := lines.Decode(&p); err != nil {
			t.Fatal(err)
		}
	}
	if p.Deployment.State != model.DeploymentSucceeded || len(p.Tasks) != 1 {
		t.Errorf("%+v", p)
	}
	if err := lines.Decode(&p); err != io.EOF {
		t.Errorf("the stream goes on: %v", err)
	}
}

func TestLogs(t *testing.T) {
	h := newHouse(t)
	h.call(t, "POST", "/deploy", `{"app": "web", "env": "test"}`, nil)
	h.Task("t1", "/test/web", "ms1", 31000)
	for query, want := range map[string]string{"": "t1 stdout\n", "?stream=stderr": "t1 stderr\n"} {
		resp := h.call(t, "GET", "/logs/t1"+query, "", nil)
		if raw, _ := io.ReadAll(resp.Body); string(raw) != want {
			t.Errorf("%q", raw)
		}
	}
	if resp := h.call(t, "GET", "/logs/t1?stream=x", "", nil); resp.StatusCode != 400 {
		t.Error(resp.Status)
	}
}
