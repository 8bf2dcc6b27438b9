package consul_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"appliance/discovery"
	"appliance/discovery/consul"
	"appliance/discovery/discoverytest"
	"appliance/node/model"
)

// Without a leader names are answered from what the node last knew, with a
// word for it; keys, which locks are made of, are not.
func TestWithoutALeader(t *testing.T) {
	c := discoverytest.New()
	c.Node("mm1", "192.0.2.1", model.RoleMaster)
	w := discovery.NewWatcher(c.Store, discoverytest.NewLiveness())
	go w.Run(t.Context())
	h := consul.New(consul.Config{Store: c.Store, Catalog: w, Proposer: c, Node: "ms1", NodeID: "id-ms1", Addr: "192.0.2.11",
		Leader:      func() string { return "" },
		ReadIndex:   func(context.Context) (uint64, error) { return 0, errors.New("no leader") },
		LastContact: func() (time.Duration, bool) { return 42 * time.Second, true }})
	for path, want := range map[string]int{
		"/v1/catalog/nodes": 200, "/v1/health/service/web": 200, "/v1/catalog/nodes?consistent": 500, "/v1/kv/x": 500, "/v1/kv/x?stale": 404,
	} {
		t.Run(path, func(t *testing.T) {
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, path, nil))
			if rec.Code != want {
				t.Fatalf("%d %s, want %d", rec.Code, rec.Body, want)
			}
			if want != 200 {
				return
			}
			for name, v := range map[string]string{"X-Consul-KnownLeader": "false", "X-Consul-LastContact": "42000", "X-Consul-Effective-Consistency": "stale"} {
				if got := rec.Header().Get(name); got != v {
					t.Errorf("%s: %q, want %q", name, got, v)
				}
			}
		})
	}
}
