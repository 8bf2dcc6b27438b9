package node

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"appliance/node/api"
	"appliance/node/model"
	"appliance/node/pki"
	"appliance/node/wire"
	"appliance/node/wire/wiretest"
	"appliance/raft"
	"appliance/raft/command"
	"appliance/raft/feed"
	"appliance/raft/state"
)

// peerNode is the part of a node that has the state: a master that votes, or
// an agent that follows.
type peerNode struct {
	id, addr, dir string
	keys          *pki.Keychain
	store         *state.Store
	core          core
	node          *raft.Node
	stop          func()
}

func (p *peerNode) start(t *testing.T, masters func() []string) {
	t.Helper()
	p.store = state.New()
	replica := raft.NewReplica(command.NewMachine(p.store))
	dialer := wire.NewDialer(p.keys)
	ctx, cancel := context.WithCancel(context.Background())
	running := make(chan struct{}, 2)
	cfg := Config{ID: p.id, Data: p.dir}
	run := func(fn func(context.Context) error) {
		go func() { fn(ctx); running <- struct{}{} }()
	}
	parts := 1
	if p.addr == "" {
		f, err := openFollower(cfg, replica, dialer, p.store, masters, quiet())
		if err != nil {
			t.Fatal(err)
		}
		p.core = f
	} else {
		ln, err := net.Listen("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		srv, mux := wire.NewServer(p.keys, quiet()), http.NewServeMux()
		p.node, err = raft.Open(raft.Config{ID: p.id, Addr: p.addr, Dir: p.dir, Replica: replica, Listener: srv.Listener(wire.Raft),
			Dial:   func(ctx context.Context, addr string) (net.Conn, error) { return dialer.Dial(ctx, addr, wire.Raft) },
			Client: dialer.Client(), Log: quiet(), Authorize: authorize, SnapshotEntries: 20})
		if err != nil {
			t.Fatal(err)
		}
		v := &voter{Node: p.node, feed: feed.NewServer(p.node, quiet(), ctx.Done())}
		v.Mount(mux)
		v.feed.Mount(mux)
		p.core = v
		n, s := p.server()
		s.Authorize = n.access.API
		mux.Handle(pathPassed+"/", n.takePassed(s.Handler()))
		srv.HandleHTTP(mux)
		parts = 2
		run(func(ctx context.Context) error { return srv.Run(ctx, ln) })
	}
	run(p.core.Run)
	p.stop = func() {
		p.stop = func() {}
		cancel()
		for range parts {
			<-running
		}
	}
	t.Cleanup(func() { p.stop() })
}

func (p *peerNode) api() http.Handler {
	n, s := p.server()
	return n.onBehalf(s.Handler())
}

func (p *peerNode) server() (*Node, *api.Server) {
	n := &Node{cfg: Config{ID: p.id}, core: p.core, store: p.store, access: access{p.store}}
	s := &api.Server{Store: p.store, Proposer: auditor{proposer{p.core}, p.id}, Cluster: apiCluster{n},
		Authorize: func(*http.Request, api.Need) error { return nil }, Log: quiet()}
	return n, s
}

func (p *peerNode) call(t *testing.T, method, path string, body []byte) []byte {
	t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequest(method, api.Prefix+path, bytes.NewReader(body))
	p.api().ServeHTTP(w, r.WithContext(asRoot(r.Context(), nil)))
	if w.Code != http.StatusOK {
		t.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
	}
	return w.Body.Bytes()
}

// newPeers starts a cluster of masters and an agent. list are the masters' addresses.
func newPeers(t *testing.T, count int) (masters []*peerNode, agent *peerNode, list func() []string) {
	t.Helper()
	ca := wiretest.New(t)
	var addrs []string
	var servers []raft.Server
	for i := range count {
		p := &peerNode{id: fmt.Sprintf("m%d", i), addr: wiretest.Addr(), dir: t.TempDir()}
		p.keys = ca.Keychain(t, p.id, pki.Master)
		masters, addrs = append(masters, p), append(addrs, p.addr)
		servers = append(servers, raft.Server{ID: p.id, Addr: p.addr})
	}
	list = func() []string { return addrs }
	for _, p := range masters {
		p.start(t, list)
	}
	if err := masters[0].node.Bootstrap(servers); err != nil {
		t.Fatal(err)
	}
	agent = &peerNode{id: "a1", dir: t.TempDir(), keys: ca.Keychain(t, "a1", pki.Agent)}
	agent.start(t, list)
	return masters, agent, list
}

// A restore that one node takes leads all to the same state: the other
// masters, an agent, and a master that was down meanwhile.
func TestRestoreLeadsAllNodesToTheSameState(t *testing.T) {
	masters, agent, list := newPeers(t, 3)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	put := func(key, value string) {
		t.Helper()
		_, err := command.Do(ctx, proposer{masters[0].core}, &command.KVTxn{Ops: []command.KVOp{{Verb: "set", Key: key, Value: []byte(value)}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := command.Do(ctx, proposer{masters[0].core}, &command.InitCluster{Cluster: model.Cluster{ID: "c1", Name: "house"}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		put(fmt.Sprintf("k%d", i), "old")
	}
	file := agent.call(t, "GET", "/snapshot", nil) // any node saves
	away := masters[2]
	if away.node.IsLeader() {
		away = masters[1]
	}
	away.stop()
	for i := range 50 {
		put(fmt.Sprintf("k%d", i), "new")
	}
	put("late", "yes")
	if err := agent.core.Linearize(ctx); err != nil {
		t.Fatal(err)
	}
	woken := make(chan error, 1)
	watched := agent.store.Snapshot()
	go func() { woken <- watched.Wait(ctx, state.KVs.Name) }()
	masters[0].call(t, "POST", "/snapshot/restore?accept-risk=replace-state", file)
	if err := <-woken; err != nil {
		t.Errorf("a watch of the old state was not woken: %v", err)
	}
	away.start(t, list)
	put("after", "yes")
	var want []byte
	for _, p := range append(masters, agent) {
		if err := p.core.Linearize(ctx); err != nil {
			t.Fatal(p.id, err)
		}
		var b bytes.Buffer
		snap := p.store.Snapshot()
		if err := snap.Write(&b); err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = b.Bytes()
		} else if !bytes.Equal(b.Bytes(), want) {
			t.Errorf("%s has another state:\n%s\n%s", p.id, want, b.Bytes())
		}
		kv := state.KVs.Get(snap, "k7")
		if kv == nil || string(kv.Value) != "old" || state.KVs.Get(snap, "late") != nil || state.KVs.Get(snap, "after") == nil {
			t.Errorf("%s: k7 is %+v", p.id, kv)
		}
		if r := state.Audit.Last(snap); r == nil || r.What != "EndRestore" || r.Actor.Who != "root" {
			t.Errorf("%s: audit says %+v", p.id, r)
		}
	}
}
