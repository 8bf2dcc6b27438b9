package node

import (
	"context"
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"appliance/discovery/discoverytest"
	"appliance/node/model"
	"appliance/node/pki"
	"appliance/raft/command"
	"appliance/raft/state"
)

// gate is the admission of a cluster with one master, and tokens of all kinds.
func gate(t *testing.T) (*admission, *discoverytest.Cluster, map[string]string) {
	t.Helper()
	now := time.Now().UTC()
	ca, err := pki.NewCA(rand.Reader, now, newID())
	if err != nil {
		t.Fatal(err)
	}
	c := discoverytest.New()
	c.Must(&command.InitCluster{Cluster: model.Cluster{ID: ca.Cluster, Name: "house", VIP: "192.0.2.100"}})
	c.Node("mm1", "192.0.2.1", model.RoleMaster)
	tokens := map[string]string{}
	for name, o := range map[string]struct {
		role    model.Role
		ttl     time.Duration
		single  bool
		unknown bool
	}{
		"agent": {role: model.RoleAgent, ttl: time.Hour}, "master": {role: model.RoleMaster, ttl: time.Hour},
		"expired": {role: model.RoleAgent, ttl: -time.Second}, "single": {role: model.RoleAgent, ttl: time.Hour, single: true},
		"revoked": {role: model.RoleAgent, unknown: true},
	} {
		tok, err := pki.NewToken(rand.Reader, o.role, ca.Digest())
		if err != nil {
			t.Fatal(err)
		}
		tokens[name] = tok.String()
		if !o.unknown {
			c.Must(&command.PutJoinToken{Token: tok.Record(now, now.Add(o.ttl), o.single)})
		}
	}
	last := tokens["agent"]
	tokens["guessed"] = last[:len(last)-2] + map[bool]string{true: "ba", false: "aa"}[last[len(last)-2:] == "aa"]
	return &admission{ca: founder(t, ca), gossip: func() [][]byte { return [][]byte{make([]byte, pki.GossipKeyBytes)} }, store: c.Store, proposer: c, sync: func(context.Context) error { return nil },
		masters: func() []string { return []string{"192.0.2.1:7600"} }}, c, tokens
}

// founder is what the first master of ca has to sign with.
func founder(t *testing.T, ca *pki.CA) *authority {
	t.Helper()
	cfg := Config{ID: newID(), Name: "mm1", Role: model.RoleMaster, Advertise: "192.0.2.1", Data: t.TempDir()}
	if err := storeFounder(cfg, ca, time.Now()); err != nil {
		t.Fatal(err)
	}
	keys, err := cfg.pki().Keychain(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return &authority{dir: cfg.pki(), keys: keys, trust: func() *model.Trust { return nil }}
}

func asking(t *testing.T, token, name, addr string, role model.Role) joinRequest {
	t.Helper()
	req, err := pki.NewRequest(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return joinRequest{Token: token, CSR: req.CSR, Name: name, Role: role, Addr: addr}
}

func TestAdmission(t *testing.T) {
	cases := []struct {
		name              string
		token, node, addr string
		role              model.Role
		code              model.Code // "" is admitted
	}{
		{"agent", "agent", "ms1", "192.0.2.11", model.RoleAgent, ""},
		{"master", "master", "mm2", "192.0.2.2", model.RoleMaster, ""},
		{"expired", "expired", "ms1", "192.0.2.11", model.RoleAgent, model.CodeDenied},
		{"revoked", "revoked", "ms1", "192.0.2.11", model.RoleAgent, model.CodeDenied},
		{"guessed", "guessed", "ms1", "192.0.2.11", model.RoleAgent, model.CodeDenied},
		{"no token", "", "ms1", "192.0.2.11", model.RoleAgent, model.CodeInvalid},
		{"agent that wants to be master", "agent", "mm2", "192.0.2.2", model.RoleMaster, model.CodeDenied},
		{"name of a living node", "master", "mm1", "192.0.2.2", model.RoleMaster, model.CodeConflict},
		{"name that is none", "agent", "ms 1", "192.0.2.11", model.RoleAgent, model.CodeInvalid},
		{"address that is none", "agent", "ms1", "ms1", model.RoleAgent, model.CodeInvalid},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			a, c, tokens := gate(t)
			before := c.Store.Index()
			ans, err := a.join(t.Context(), asking(t, tokens[tc.token], tc.node, tc.addr, tc.role))
			if tc.code == "" {
				if err != nil || (len(ans.CAKey) > 0) != (tc.role == model.RoleMaster) || ans.VIP != "192.0.2.100" {
					t.Fatalf("%+v: %v", ans, err)
				}
				if n := state.Nodes.Get(c.Store.Snapshot(), ans.ID); n == nil || n.Name != tc.node || n.Role != tc.role {
					t.Errorf("the state has %+v", n)
				}
				return
			}
			var e *model.Error
			if !errors.As(err, &e) || e.Code != tc.code {
				t.Errorf("got %v, want %s", err, tc.code)
			}
			for n := range state.Nodes.All(c.Store.Snapshot()) {
				if n.Name != "mm1" {
					t.Errorf("node %s is in (index %d, before %d)", n.Name, c.Store.Index(), before)
				}
			}
			if len(ans.Chain)+len(ans.CAKey)+len(ans.Gossip) > 0 {
				t.Error("the refused machine was given something")
			}
		})
	}
}

func TestAdmissionOfOneMachine(t *testing.T) {
	a, _, tokens := gate(t)
	if _, err := a.join(t.Context(), asking(t, tokens["single"], "ms1", "192.0.2.11", model.RoleAgent)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.join(t.Context(), asking(t, tokens["single"], "ms2", "192.0.2.12", model.RoleAgent)); model.CodeOf(err) != model.CodeDenied {
		t.Errorf("a second machine: %v", err)
	}
}

// The answer to a join may be lost; and a machine may be built anew.
func TestAdmissionAgainUnderTheSameName(t *testing.T) {
	for _, role := range []model.Role{model.RoleAgent, model.RoleMaster} {
		t.Run(string(role), func(t *testing.T) {
			a, c, tokens := gate(t)
			first, err := a.join(t.Context(), asking(t, tokens[string(role)], "rebuilt", "192.0.2.11", role))
			if err != nil {
				t.Fatal(err)
			}
			second, err := a.join(t.Context(), asking(t, tokens[string(role)], "rebuilt", "192.0.2.11", role))
			if err != nil || second.Replaced != first.ID {
				t.Fatalf("replaced %q, not %q: %v", second.Replaced, first.ID, err)
			}
			if state.Nodes.Get(c.Store.Snapshot(), first.ID) != nil {
				t.Error("the former node is still there")
			}
		})
	}
}
