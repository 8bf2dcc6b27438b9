package consul_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"appliance/discovery"
	"appliance/discovery/check"
	"appliance/discovery/consul"
	"appliance/discovery/discoverytest"
	"appliance/node/model"
	"appliance/raft/command"
)

// FuzzRequest sends any method, path, query and body: no panic, and an answer.
func FuzzRequest(f *testing.F) {
	for _, seed := range [][3]string{
		{"PUT", "/v1/agent/service/register", `{"name":"x","checks":[{"ttl":"1s"},null]}`},
		{"PUT", "/v1/agent/check/register", `{"Name":"x","TTL":1e300}`},
		{"PUT", "/v1/catalog/register", `{"Node":"n","Address":"a","Service":{"Service":"s"},"Checks":[null]}`},
		{"PUT", "/v1/txn", `[{"KV":{"Verb":"get","Key":"a"}},{}]`},
		{"PUT", "/v1/session/create", `{"LockDelay":15,"TTL":"10s","ServiceChecks":[{"ID":"x"}]}`},
		{"GET", "/v1/kv/a?keys&separator=/", ""},
		{"GET", `/v1/health/service/web?filter=Service.Tags+contains+"x"`, ""},
		{"DELETE", "/v1/kv/a?cas=1", ""},
		{"GET", "/v1/health/service/", ""},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	c := discoverytest.New()
	c.Node("mm1", "10.0.0.1", model.RoleMaster)
	w := discovery.Watch(f.Context(), c.Store, nil)
	h := consul.New(consul.Config{Store: c.Store, Catalog: w, Proposer: c, Node: "mm1", NodeID: "id-mm1", Addr: "10.0.0.1",
		Checks: check.New(check.Config{Store: c.Store, Node: "mm1", Proposer: c})})
	f.Fuzz(func(t *testing.T, method, target, body string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || !strings.HasPrefix(u.Path, "/v1/") || strings.ContainsAny(method, " \r\n") || method == "" {
			return
		}
		q := u.Query()
		for _, name := range []string{"index", "hash"} { // would wait
			q.Del(name)
		}
		u.RawQuery = q.Encode()
		req := httptest.NewRequest("GET", "/", strings.NewReader(body))
		req.Method, req.URL = method, u
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, req)
		if rec.Code < 200 || rec.Code > 599 {
			t.Errorf("%s %s: %d", method, target, rec.Code)
		}
	})
}

// TestWatchFanOut lets many clients wait for one service: all see the change,
// and it is computed and encoded once.
func TestWatchFanOut(t *testing.T) {
	a := start(t, nil)
	const watchers = 200
	_, meta, err := a.client.Health().Service("notejam-test", "", true, nil)
	if err != nil {
		t.Fatal(err)
	}
	bodies := make(chan string, watchers)
	target := fmt.Sprintf("%s/v1/health/service/notejam-test?passing&index=%d&wait=20s", a.url, meta.LastIndex)
	for range watchers {
		go func() {
			resp, err := http.Get(target)
			if err != nil {
				bodies <- err.Error()
				return
			}
			defer resp.Body.Close()
			bodies <- resp.Header.Get("X-Consul-Index")
		}()
	}
	time.Sleep(20 * time.Millisecond) // most of them wait by now; the others must see the same
	a.Stop("t1")
	first := <-bodies
	for range watchers - 1 {
		if got := <-bodies; got != first {
			t.Fatalf("index %s and %s", first, got)
		}
	}
}

func BenchmarkHealthService(b *testing.B) {
	c := discoverytest.New()
	for i := range 10 {
		c.Must(&command.RegisterService{Service: &model.ExternalService{Node: fmt.Sprint("n", i), NodeAddr: "10.0.0.1", ID: "web", Name: "web", Port: 80}})
	}
	w := discovery.Watch(b.Context(), c.Store, nil)
	h := consul.New(consul.Config{Store: c.Store, Catalog: w, Proposer: c, Node: "mm1"})
	req := httptest.NewRequest("GET", "/v1/health/service/web?passing", nil)
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(httptest.NewRecorder(), req)
	}
}
