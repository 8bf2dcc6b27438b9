package check_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"appliance/discovery/check"
	"appliance/discovery/discoverytest"
	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
)

func register(c *discoverytest.Cluster, spec model.CheckDefinition) {
	c.Must(&command.RegisterService{
		Service: &model.ExternalService{Node: "n1", ID: "web", Name: "web"},
		Checks:  []model.ExternalCheck{{Node: "n1", ID: "c", Service: "web", Status: "critical", Spec: spec}},
	})
}

func row(c *discoverytest.Cluster) *model.ExternalCheck {
	return state.Checks.Get(c.Store.Snapshot(), "n1\x00c")
}

func start(t *testing.T, c *discoverytest.Cluster) (*check.Runner, func()) {
	r := check.New(check.Config{Store: c.Store, Node: "n1", Proposer: c})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	return r, func() {
		cancel()
		if err := <-done; err != context.Canceled {
			t.Errorf("Run = %v", err)
		}
	}
}

func until(t *testing.T, c *discoverytest.Cluster, status, output string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	for {
		snap := c.Store.Snapshot()
		if r := row(c); r != nil && r.Status == status && strings.Contains(r.Output, output) {
			return
		}
		if err := snap.Wait(ctx, state.Checks.Name); err != nil {
			t.Fatalf("check is %+v, want %s %q", row(c), status, output)
		}
	}
}

func TestHTTP(t *testing.T) {
	var code atomic.Int32
	code.Store(200)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Probe") != "1" || r.Method != "HEAD" {
			w.WriteHeader(400)
			return
		}
		w.WriteHeader(int(code.Load()))
	}))
	defer srv.Close()
	c := discoverytest.New()
	register(c, model.CheckDefinition{HTTP: srv.URL, Method: "HEAD", Header: map[string][]string{"x-probe": {"1"}}, Interval: model.Duration(time.Second)})
	_, stop := start(t, c)
	defer stop()
	until(t, c, "passing", "200 OK")
	code.Store(429)
	until(t, c, "warning", "429")
	code.Store(503)
	until(t, c, "critical", "503")
}

func TestTCP(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := discoverytest.New()
	register(c, model.CheckDefinition{TCP: ln.Addr().String(), Interval: model.Duration(time.Second)})
	_, stop := start(t, c)
	defer stop()
	until(t, c, "passing", "Success")
	ln.Close()
	until(t, c, "critical", "refused")
}

func TestTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := discoverytest.New()
		register(c, model.CheckDefinition{TTL: model.Duration(10 * time.Second)})
		r, stop := start(t, c)
		defer stop()
		synctest.Wait()
		beat := func() {
			if err := r.Update(t.Context(), "c", "passing", "fine"); err != nil {
				t.Fatal(err)
			}
		}
		beat()
		written := c.Store.Index()
		for range 5 {
			time.Sleep(9 * time.Second)
			beat()
		}
		if row(c).Status != "passing" || c.Store.Index() != written {
			t.Errorf("heartbeats in time: %s, %d writes", row(c).Status, c.Store.Index()-written)
		}
		time.Sleep(11 * time.Second)
		if row(c).Status != "critical" || row(c).Output != "TTL expired" {
			t.Errorf("after the TTL: %+v", row(c))
		}
		beat()
		if row(c).Status != "passing" {
			t.Error("a late heartbeat does not heal")
		}
	})
}

func TestTTLErrors(t *testing.T) {
	c := discoverytest.New()
	register(c, model.CheckDefinition{HTTP: "http://x"})
	r := check.New(check.Config{Store: c.Store, Node: "n1", Proposer: c})
	if err := r.Update(t.Context(), "none", "passing", ""); model.CodeOf(err) != model.CodeNotFound {
		t.Errorf("unknown: %v", err)
	}
	if err := r.Update(t.Context(), "c", "passing", ""); err == nil || !strings.Contains(err.Error(), "TTL") {
		t.Errorf("not a TTL check: %v", err)
	}
}

func TestDeregisterAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := discoverytest.New()
		register(c, model.CheckDefinition{TTL: model.Duration(10 * time.Second), DeregisterAfter: model.Duration(time.Second)})
		_, stop := start(t, c)
		defer stop()
		time.Sleep(50 * time.Second)
		if row(c) == nil {
			t.Error("gone before the least time")
		}
		time.Sleep(time.Minute)
		if row(c) != nil {
			t.Error("still there")
		}
	})
}

func TestBound(t *testing.T) {
	if got := check.Bound(strings.Repeat("é", check.MaxOutput)); len(got) > check.MaxOutput || !strings.HasSuffix(got, "é") {
		t.Errorf("%d bytes", len(got))
	}
}
