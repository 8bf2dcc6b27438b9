package node

import (
	"context"
	"crypto/rand"
	"log/slog"
	"testing"
	"time"

	"appliance/discovery/discoverytest"
	"appliance/node/model"
	"appliance/node/pki"
	"appliance/node/wire"
	"appliance/node/wire/wiretest"
	"appliance/raft"
	"appliance/raft/command"
	"appliance/raft/state"
)

// Agents whose masters were away for longer than their certificates live must
// come back by themselves, and nobody else with them.
func TestCertificatesThatRanOut(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Now()
	member := func(status model.NodeStatus) *model.Node {
		return &model.Node{ID: "a1", Name: "ms1", Role: model.RoleAgent, Addr: "192.0.2.11", Status: status}
	}
	cases := []struct {
		name     string
		expired  time.Duration // how long ago; negative: still valid
		node     *model.Node
		majority bool
		want     model.Code
	}{
		{"valid", -time.Hour, member(model.NodeReady), true, ""},
		{"valid, without a majority", -time.Hour, member(model.NodeReady), false, ""},
		{"ran out over a weekend", 3 * day, member(model.NodeDown), true, ""},
		{"ran out, and no majority knows who is a member", 3 * day, member(model.NodeReady), false, model.CodeUnavailable},
		{"ran out long ago", 31 * day, member(model.NodeReady), true, model.CodeDenied},
		{"ran out, and the node was removed", day, nil, true, model.CodeDenied},
		{"ran out, and the node has left", day, member(model.NodeLeft), true, model.CodeDenied},
		{"valid, and the node has left", -time.Hour, member(model.NodeLeft), true, model.CodeDenied},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			a, c, _ := gate(t)
			if tc.node != nil {
				c.Must(&command.RegisterNode{Node: *tc.node, At: now})
			}
			if !tc.majority {
				a.sync = func(context.Context) error { return raft.ErrNoLeader }
			}
			peer := wire.Peer{Identity: pki.Identity{ID: "a1", Name: "ms1", Role: pki.Agent}, Expired: tc.expired > 0, NotAfter: now.Add(-tc.expired)}
			req, err := pki.NewRequest(rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			ans, err := a.renew(wire.WithPeer(t.Context(), peer), renewRequest{CSR: req.CSR})
			if model.CodeOf(err) != tc.want && !(err == nil && tc.want == "") {
				t.Fatalf("got %v, want %q", err, tc.want)
			}
			if (err == nil) != (len(ans.Chain) > 0) {
				t.Errorf("chain of %d bytes with %v", len(ans.Chain), err)
			}
		})
	}
}

// The same over real connections: an expired certificate opens nothing but
// the way to a new one.
func TestExpiredNodeGetsBackIn(t *testing.T) {
	cluster := wiretest.New(t)
	keys := cluster.KeychainAt(t, "a1", pki.Agent, time.Now().Add(-3*24*time.Hour))
	master := wire.NewServer(cluster.Keychain(t, "m1", pki.Master), slog.New(slog.DiscardHandler))
	a, c, _ := gate(t)
	c.Must(&command.RegisterNode{Node: model.Node{ID: "a1", Name: "a1", Role: model.RoleAgent, Addr: "127.0.0.1", Status: model.NodeDown}, At: time.Now()})
	renewed := 0
	master.HandleJoin(serveJSON(func(ctx context.Context, req renewRequest) (renewAnswer, error) {
		peer, _ := wire.PeerFrom(ctx)
		n, err := a.mayRenew(ctx, peer, time.Now())
		if err != nil {
			return renewAnswer{}, err
		}
		renewed++
		chain, err := cluster.CA.Issue(rand.Reader, time.Now(), req.CSR, pki.Identity{Cluster: cluster.CA.Cluster, ID: n.ID, Name: n.Name, Role: n.Role}, nil)
		return renewAnswer{Chain: chain}, err
	}))
	addr := wiretest.Serve(t, master)
	if conn, err := wire.NewDialer(keys).Dial(t.Context(), addr, wire.HTTP); err == nil {
		_, err = conn.Read(make([]byte, 1))
		conn.Close()
		if err == nil {
			t.Error("the expired certificate opens an ordinary connection")
		}
	}
	if !keys.Expired(time.Now()) {
		t.Fatal("the test proves nothing")
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = keys.Run(ctx, slog.New(slog.DiscardHandler), func(ctx context.Context, csr []byte) ([]byte, error) {
			var ans renewAnswer
			err := postJSON(ctx, wire.JoinClient(nil, keys, nil), "https://"+addr+"/renew", renewRequest{CSR: csr}, &ans)
			return ans.Chain, err
		}, nil)
	}()
	for deadline := time.Now().Add(10 * time.Second); keys.Expired(time.Now()) && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	<-done
	if keys.Expired(time.Now()) || renewed != 1 {
		t.Errorf("expired: %v, renewed %d times", keys.Expired(time.Now()), renewed)
	}
}

// stray is a master's log that nobody leads, or somebody.
type stray struct {
	core
	led string
}

func (s stray) leader() string { return s.led }

func TestAMasterThatKnowsNothingLeavesTheVIPToOthers(t *testing.T) {
	now := time.Now()
	known := discoverytest.New()
	known.Must(&command.InitCluster{Cluster: model.Cluster{ID: "c1", Name: "house"}})
	for _, tc := range []struct {
		name   string
		agent  bool
		led    string
		known  bool
		runs   time.Duration
		serves bool
	}{
		{name: "just started alone", runs: time.Second},
		{name: "alone for long, without a state", runs: time.Hour},
		{name: "just started alone, with its last snapshot", known: true, runs: time.Second},
		{name: "alone for long, with its last snapshot", known: true, runs: loneVIP, serves: true},
		{name: "led", led: "m2", runs: time.Second, serves: true},
		{name: "an agent, whose state is kept", agent: true, known: true, serves: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := &Node{store: state.New(), core: stray{led: tc.led}, started: now.Add(-tc.runs)}
			if !tc.agent {
				n.voter = &voter{}
			}
			if tc.known {
				n.store = known.Store
			}
			if got := n.awaitVIP(now); got != tc.serves {
				t.Errorf("it may hold the VIP: %v", got)
			}
		})
	}
}
