package gossip_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"appliance/discovery"
	"appliance/discovery/gossip"
)

var _ discovery.Liveness = (*gossip.Gossip)(nil)

var key = bytes.Repeat([]byte{7}, 32)

func start(t *testing.T, id, bind string, change func(*gossip.Config), seeds ...string) *gossip.Gossip {
	t.Helper()
	cfg := gossip.Config{ID: id, Name: "name-" + id, Role: "agent", Version: "1", Cluster: "c1", Key: key, Bind: bind,
		Seeds: func() []string { return seeds }}
	if change != nil {
		change(&cfg)
	}
	g, err := gossip.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Shutdown() })
	if len(seeds) > 0 {
		g.Join(seeds)
	}
	return g
}

// until polls what gossip knows, woken by its own changes.
func until(t *testing.T, g *gossip.Gossip, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		changed := g.Changed()
		if ok() {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("%s: never; members %+v", what, g.Members())
		}
	}
}

func alive(g *gossip.Gossip) int {
	n := 0
	for _, m := range g.Members() {
		if m.Alive {
			n++
		}
	}
	return n
}

func TestFiveMembers(t *testing.T) {
	first := start(t, "n0", "127.0.0.1", nil)
	all := []*gossip.Gossip{first}
	for i := 1; i < 5; i++ {
		all = append(all, start(t, fmt.Sprintf("n%d", i), "127.0.0.1", nil, first.Addr()))
	}
	for _, g := range all {
		until(t, g, "all five", func() bool { return alive(g) == 5 })
	}
	if m := first.Members()[4]; m.ID != "n4" || m.Name != "name-n4" || m.Role != "agent" || m.Addr != "127.0.0.1" {
		t.Errorf("member = %+v", m)
	}
	if ok, _ := first.Alive("never-met"); !ok {
		t.Error("a node that was never met counts as dead")
	}

	all[4].Shutdown()
	for _, g := range all[:4] {
		until(t, g, "death noticed", func() bool { ok, _ := g.Alive("n4"); return !ok })
	}

	// The same id comes back with another address.
	again := start(t, "n4", "127.0.0.9", nil, first.Addr())
	ctx := t.Context()
	go again.Run(ctx)
	for _, g := range all[:4] {
		until(t, g, "return noticed", func() bool {
			i := slices.IndexFunc(g.Members(), func(m gossip.Member) bool { return m.ID == "n4" && m.Alive })
			return i >= 0 && g.Members()[i].Addr == "127.0.0.9"
		})
	}

	if err := all[3].Leave(2 * time.Second); err != nil {
		t.Fatal(err)
	}
	until(t, first, "goodbye noticed", func() bool { ok, _ := first.Alive("n3"); return !ok })
	if err := all[3].Leave(time.Second); err != nil {
		t.Errorf("second goodbye: %v", err)
	}
}

func TestStrangersStayOut(t *testing.T) {
	tests := []struct {
		name   string
		change func(*gossip.Config)
	}{
		{"wrong key", func(c *gossip.Config) { c.Key = bytes.Repeat([]byte{8}, 32) }},
		{"other cluster", func(c *gossip.Config) { c.Cluster = "c2" }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			first := start(t, "n0", "127.0.0.1", nil)
			other := start(t, "n1", "127.0.0.1", tt.change)
			if n, err := other.Join([]string{first.Addr()}); err == nil || n != 0 {
				t.Errorf("joined %d, %v", n, err)
			}
			if n := alive(first); n != 1 {
				t.Errorf("%d alive", n)
			}
		})
	}
}

func TestBadConfig(t *testing.T) {
	for _, cfg := range []gossip.Config{
		{},
		{ID: "a", Cluster: "c", Bind: "127.0.0.1"},
		{ID: "a", Cluster: "c", Key: []byte("short"), Bind: "127.0.0.1"},
		{ID: "a", Cluster: "c", Key: key, Name: string(bytes.Repeat([]byte{'x'}, 600)), Bind: "127.0.0.1"},
	} {
		if g, err := gossip.New(cfg); err == nil {
			g.Shutdown()
			t.Errorf("%+v was taken", cfg)
		}
	}
}
