package node

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"appliance/node/api"
	"appliance/node/model"
	"appliance/raft/command"
)

// A read on any node sees what was acknowledged on any other, unless it asks
// for what the node has.
func TestReadsSeeWhatWasAcknowledgedElsewhere(t *testing.T) {
	masters, agent, _ := newPeers(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if _, err := command.Do(ctx, proposer{masters[0].core}, &command.InitCluster{Cluster: model.Cluster{ID: "c1", Name: "house"}}); err != nil {
		t.Fatal(err)
	}
	readers := map[*peerNode]*Node{agent: agent.wired()}
	for _, m := range masters {
		readers[m] = m.wired()
	}
	for i := range 100 {
		writer := masters[i%3]
		res, err := command.Do(ctx, proposer{writer.core}, &command.KVTxn{Ops: []command.KVOp{{Verb: "set", Key: "k", Value: []byte{byte(i)}}}})
		if err != nil {
			t.Fatal(err)
		}
		for p, n := range readers {
			_, ok := n.confirm(ctx)
			for !ok && ctx.Err() == nil { // a starved machine elects now and then
				_, ok = n.confirm(ctx)
			}
			if !ok || p.store.Index() < res.Index {
				t.Fatalf("%s confirms %v at %d what was acknowledged at %d", p.id, ok, p.store.Index(), res.Index)
			}
		}
	}
}

// While nobody leads, reads are answered, and say as of when.
func TestReadsAreAnsweredWhileNobodyLeads(t *testing.T) {
	masters, agent, list := newPeers(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if err := masters[0].core.Linearize(ctx); err != nil {
		t.Fatal(err)
	}
	for _, m := range masters[1:] {
		m.stop()
	}
	marathon := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	led := time.Now().Add(-time.Hour).Truncate(time.Second)
	for _, p := range []*peerNode{masters[0], agent} {
		n := p.wired()
		n.led.Store(&led)
		for n.leader() != "" && ctx.Err() == nil { // it notices within some heartbeats
			time.Sleep(10 * time.Millisecond)
		}
		if asOf, ok := n.confirm(ctx); ok || !asOf.Equal(led) || ctx.Err() != nil {
			t.Fatalf("%s: %v as of %s", p.id, ok, asOf)
		}
		for path, want := range map[string]string{"/v2/apps": led.UTC().Format(time.RFC3339), "/v2/apps?stale": "", "/v2/events": "", "/ping": ""} {
			w := httptest.NewRecorder()
			n.current(marathon).ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil).WithContext(ctx))
			if got := w.Header().Get(api.StaleHeader); w.Code != http.StatusOK || got != want {
				t.Errorf("%s: %s is %d, stale %q", p.id, path, w.Code, got)
			}
		}
	}
	for _, m := range masters[1:] {
		m.start(t, list)
	}
	for _, p := range []*peerNode{masters[0], agent} {
		n := p.wired()
		for ok := false; !ok; _, ok = n.confirm(ctx) {
			if ctx.Err() != nil {
				t.Fatalf("%s confirms nothing with a leader", p.id)
			}
		}
		if n.noteLeader(time.Now()); n.leader() != "" && n.lastLed().IsZero() {
			t.Errorf("%s does not remember the leader", p.id)
		}
	}
}

// wired is the node with what reads need; an agent's feed counts as touch.
func (p *peerNode) wired() *Node {
	n, _ := p.server()
	n.voter, _ = p.core.(*voter)
	return n
}
