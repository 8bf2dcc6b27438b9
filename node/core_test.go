package node

import (
	"reflect"
	"testing"
	"time"

	"appliance/discovery/consul"
	"appliance/discovery/discoverytest"
	"appliance/node/model"
	"appliance/node/pki"
	"appliance/node/wire"
	"appliance/raft/command"
)

func TestAuthorizeProposals(t *testing.T) {
	master := wire.Peer{Identity: pki.Identity{ID: "m1", Role: model.RoleMaster}}
	agent := wire.Peer{Identity: pki.Identity{ID: "a1", Role: model.RoleAgent}}
	cases := []struct {
		name string
		peer wire.Peer
		c    command.Command
		ok   bool
	}{
		{"agent reports its tasks", agent, &command.Observe{Node: "a1"}, true},
		{"agent reports another's tasks", agent, &command.Observe{Node: "a2"}, false},
		{"agent speaks for itself", agent, &command.UpdateNode{Node: model.Node{ID: "a1"}}, true},
		{"agent speaks for another", agent, &command.UpdateNode{Node: model.Node{ID: "m1"}}, false},
		{"agent passes a deploy on", agent, &command.CreateRelease{}, true},
		{"agent passes a key on", agent, &command.KVTxn{}, true},
		{"agent passes an event on", agent, &command.RecordEvent{Event: model.Event{Kind: consul.UserEvent}}, true},
		{"agent writes history", agent, &command.RecordEvent{Event: model.Event{Kind: "node"}}, false},
		{"agent admits a node", agent, &command.RegisterNode{}, false},
		{"agent removes a node", agent, &command.RemoveNode{}, false},
		{"agent declares a node down", agent, &command.SetNodeStatus{}, false},
		{"agent makes an API token", agent, &command.PutAPIToken{}, false},
		{"agent makes a join token", agent, &command.PutJoinToken{}, false},
		{"agent places tasks", agent, &command.Place{}, false},
		{"agent moves a volume", agent, &command.MoveVolume{}, false},
		{"agent hides it in a batch", agent, &command.Batch{}, false},
		{"agent passes on what a user of it wants", agent, command.Audit(&command.KVTxn{}, model.Actor{Node: "a1"}, time.Time{}), true},
		{"agent tells of another's user", agent, command.Audit(&command.KVTxn{}, model.Actor{Node: "a2"}, time.Time{}), false},
		{"agent hides it behind a user", agent, command.Audit(&command.PutAPIToken{}, model.Actor{Node: "a1"}, time.Time{}), false},
		{"agent replaces the state", agent, &command.EndRestore{Commit: true}, false},
		{"agent founds a cluster", agent, &command.InitCluster{}, false},
		{"master does all", master, &command.PutAPIToken{}, true},
		{"nobody in particular", wire.Peer{}, &command.PutAPIToken{}, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			raw, err := command.Encode(c.c)
			if err != nil {
				t.Fatal(err)
			}
			if err := authorize(c.peer, raw); (err == nil) != c.ok {
				t.Errorf("got %v", err)
			}
		})
	}
	if authorize(agent, []byte("garbage")) == nil {
		t.Error("garbage was let through")
	}
}

func TestMastersAreKnownFromTheState(t *testing.T) {
	c := discoverytest.New()
	m := &masters{where: &locator{store: c.Store}, fallback: []string{"192.0.2.9:7600"}}
	if got := m.list(); !reflect.DeepEqual(got, m.fallback) {
		t.Errorf("before there is a state: %v", got)
	}
	c.Node("mm2", "192.0.2.2", model.RoleMaster)
	c.Node("mm1", "192.0.2.1", model.RoleMaster)
	c.Node("ms1", "192.0.2.3", model.RoleAgent)
	if got, want := m.list(), []string{"192.0.2.1:7600", "192.0.2.2:7600"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
