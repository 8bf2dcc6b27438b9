package command_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"appliance/discovery/discoverytest"
	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"

	"pgregory.net/rapid"
)

// machine is a node that follows the log as late as it likes.
type machine struct {
	id   string
	role model.Role
	up   bool
	view *state.Snapshot // what it has seen of the log
	has  model.NodeTrust
}

func (m *machine) trust() *model.Trust {
	for c := range state.Clusters.All(m.view) {
		return c.Trust
	}
	return nil
}

// settle takes over what the view says, as the node does.
func (m *machine) settle(holders map[string]map[string]bool) {
	t := m.trust()
	m.has.CAs, m.has.Gossip = t.CA.IDs(), nil
	for _, id := range t.Gossip.IDs() {
		if holders[id] != nil {
			m.has.Gossip = append(m.has.Gossip, id)
		}
	}
	if m.role == model.RoleMaster {
		for _, k := range slices.Concat(t.CA.Keys, t.Seal.Keys) {
			if holders[k.ID][m.id] || m.fetch(holders[k.ID]) {
				holders[k.ID][m.id] = true
			}
		}
	}
}

func (m *machine) fetch(by map[string]bool) bool { return len(by) > 0 }

// renew gets a certificate of the CA in use from a master that can sign with it.
func (m *machine) renew(holders map[string]map[string]bool) {
	if use := m.trust().CA.Use(); len(holders[use]) > 0 {
		m.has.Leaf = use
	}
}

func (m *machine) said(holders map[string]map[string]bool) model.NodeTrust {
	has := m.has
	has.CAs, has.Gossip, has.Keys = slices.Clone(has.CAs), slices.Clone(has.Gossip), nil
	if m.role == model.RoleMaster {
		for id, by := range holders {
			if by[m.id] {
				has.Keys = append(has.Keys, id)
			}
		}
		slices.Sort(has.Keys)
	}
	return has
}

// Whatever order nodes see, do and say things in, whoever dies and comes back:
// no two nodes that are up ever meet without knowing each other.
func TestRotationNeverPartsTheLiving(t *testing.T) {
	done := 0
	rapid.Check(t, func(t *rapid.T) {
		c := discoverytest.New()
		ring := func(id string) model.Ring { return model.Ring{Keys: []model.TrustKey{{ID: id}}, Active: id} }
		c.Must(&command.InitCluster{Cluster: model.Cluster{ID: "c",
			Trust: &model.Trust{CA: ring("ca-0"), Gossip: ring("gossip-0"), Seal: ring("seal-0")}}})
		holders := map[string]map[string]bool{"ca-0": {}, "seal-0": {}, "gossip-0": {"all": true}}
		var all []*machine
		for i, role := range []model.Role{model.RoleMaster, model.RoleMaster, model.RoleMaster, model.RoleAgent, model.RoleAgent} {
			m := &machine{id: fmt.Sprintf("n%d", i), role: role, up: true}
			c.Node(m.id, fmt.Sprintf("192.0.2.%d", i+1), role)
			m.has = model.NodeTrust{CAs: []string{"ca-0"}, Leaf: "ca-0", Gossip: []string{"gossip-0"}}
			if role == model.RoleMaster {
				holders["ca-0"][m.id], holders["seal-0"][m.id] = true, true
			}
			all = append(all, m)
		}
		ids := map[string]string{}
		for n := range state.Nodes.All(c.Store.Snapshot()) {
			ids[n.Name] = n.ID
		}
		for _, m := range all {
			m.id = ids[m.id]
			for _, by := range holders {
				for name, id := range ids {
					if by[name] {
						delete(by, name)
						by[id] = true
					}
				}
			}
			m.view = c.Store.Snapshot()
		}
		try := func(cmd command.Command) { _, _ = command.Do(t.Context(), c, cmd) }
		some := func(t *rapid.T, up bool) *machine {
			var fit []*machine
			for _, m := range all {
				if m.up == up {
					fit = append(fit, m)
				}
			}
			if len(fit) == 0 {
				t.Skip("none")
			}
			return rapid.SampledFrom(fit).Draw(t, "node")
		}
		now, made := discoverytest.Start, 0
		aRing := func(t *rapid.T) model.RingName { return rapid.SampledFrom(model.RingNames).Draw(t, "ring") }
		finish := func(name model.RingName) {
			if _, err := command.Do(t.Context(), c, &command.RotateKey{Ring: name, Step: command.StepFinish, At: now}); err == nil {
				done++
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"begin": func(t *rapid.T) { try(&command.RotateKey{Ring: aRing(t), Step: command.StepBegin, At: now}) },
			"abort": func(t *rapid.T) {
				if rapid.IntRange(0, 5).Draw(t, "often") == 0 {
					try(&command.RotateKey{Ring: aRing(t), Step: command.StepAbort, At: now})
				}
			},
			"make": func(t *rapid.T) {
				name, maker := aRing(t), some(t, true)
				r := maker.trust().Ring(name)
				if maker.role != model.RoleMaster || r.Phase != model.PhaseKey && len(holders[r.Next]) > 0 {
					t.Skip("not now")
				}
				made++
				id := fmt.Sprintf("%s-%d", name, made)
				holders[id] = map[string]bool{maker.id: true}
				try(&command.RotateKey{Ring: name, Step: command.StepSpread, Key: model.TrustKey{ID: id}, At: now})
			},
			"switch": func(t *rapid.T) { try(&command.RotateKey{Ring: aRing(t), Step: command.StepSwitch, At: now}) },
			"finish": func(t *rapid.T) { finish(aRing(t)) },
			"leave behind": func(t *rapid.T) {
				try(&command.RotateKey{Ring: model.RingCA, Step: command.StepLeave, Nodes: []string{some(t, false).id}, At: now})
			},
			"see":    func(t *rapid.T) { m := some(t, true); m.view = c.Store.Snapshot(); m.settle(holders) },
			"renew":  func(t *rapid.T) { some(t, true).renew(holders) },
			"report": func(t *rapid.T) { m := some(t, true); try(&command.ReportTrust{Node: m.id, Trust: m.said(holders)}) },
			"die": func(t *rapid.T) {
				m, left := some(t, true), 0
				for _, o := range all {
					if o.up && o.role == model.RoleMaster {
						left++
					}
				}
				if m.role == model.RoleMaster && left == 1 {
					t.Skip("the last master")
				}
				m.up = false
				try(&command.SetNodeStatus{Node: m.id, Status: model.NodeDown, At: now})
			},
			"return": func(t *rapid.T) {
				m := some(t, false)
				m.view = c.Store.Snapshot()
				if !m.trust().CA.Has(m.has.Leaf) {
					return // it must join again: left behind
				}
				m.settle(holders)
				m.up = true
				try(&command.UpdateNode{Node: model.Node{ID: m.id}, At: now})
			},
			"round": func(t *rapid.T) { // time in which all goes well, but the leader does nothing
				for _, m := range all {
					if m.up {
						m.view = c.Store.Snapshot()
						m.settle(holders)
						m.renew(holders)
						try(&command.ReportTrust{Node: m.id, Trust: m.said(holders)})
					}
				}
			},
			"lead": func(t *rapid.T) {
				for _, name := range model.RingNames {
					try(&command.RotateKey{Ring: name, Step: command.StepSwitch, At: now})
					finish(name)
				}
			},
			"": func(t *rapid.T) { // the invariant
				for _, a := range all {
					for _, b := range all {
						if !a.up || !b.up {
							continue
						}
						if !slices.Contains(b.has.CAs, a.has.Leaf) {
							t.Fatalf("%s shows a certificate of %s, %s believes %v", a.id, a.has.Leaf, b.id, b.has.CAs)
						}
						if !slices.Contains(b.has.Gossip, a.has.Gossip[0]) {
							t.Fatalf("%s sends with %s, %s understands %v", a.id, a.has.Gossip[0], b.id, b.has.Gossip)
						}
					}
				}
			},
		})
	})
	if done == 0 && !testing.Short() { // rapid looks at few and short histories then
		t.Errorf("no rotation was finished: the test shows nothing")
	}
}

func TestRotationWaits(t *testing.T) {
	c := discoverytest.New()
	c.Must(&command.InitCluster{Cluster: model.Cluster{ID: "c", Trust: &model.Trust{CA: model.Ring{Keys: []model.TrustKey{{ID: "a"}}, Active: "a"}}}})
	c.Node("mm1", "192.0.2.1", model.RoleMaster)
	c.Node("ms1", "192.0.2.2", model.RoleAgent)
	ids := map[string]string{}
	for n := range state.Nodes.All(c.Store.Snapshot()) {
		ids[n.Name] = n.ID
	}
	step := func(step, key, refusal string) {
		t.Helper()
		cmd := &command.RotateKey{Ring: model.RingCA, Step: step, Key: model.TrustKey{ID: key, Cert: []byte(key)}, At: time.Now()}
		if step == command.StepLeave {
			cmd.Nodes = []string{ids["ms1"]}
		}
		_, err := command.Do(t.Context(), c, cmd)
		if refusal == "" && err != nil || refusal != "" && (err == nil || !strings.Contains(err.Error(), refusal)) {
			t.Fatalf("%s: %v, want %q", step, err, refusal)
		}
	}
	says := func(name string, has model.NodeTrust) { c.Must(&command.ReportTrust{Node: ids[name], Trust: has}) }
	step(command.StepSwitch, "", "not at that point")
	step(command.StepBegin, "", "")
	step(command.StepBegin, "", "under way")
	step(command.StepSpread, "b", "")
	says("mm1", model.NodeTrust{CAs: []string{"a", "b"}, Leaf: "a", Keys: []string{"a"}})
	says("ms1", model.NodeTrust{CAs: []string{"a"}, Leaf: "a"})
	step(command.StepSwitch, "", "node mm1")
	says("mm1", model.NodeTrust{CAs: []string{"a", "b"}, Leaf: "a", Keys: []string{"a", "b"}})
	step(command.StepSwitch, "", "node ms1")
	says("ms1", model.NodeTrust{CAs: []string{"a", "b"}, Leaf: "a"})
	step(command.StepSwitch, "", "")
	step(command.StepAbort, "", "not at that point")
	says("mm1", model.NodeTrust{CAs: []string{"a", "b"}, Leaf: "b", Keys: []string{"a", "b"}})
	step(command.StepFinish, "", "node ms1")
	step(command.StepLeave, "", "is alive")
	c.Must(&command.SetNodeStatus{Node: ids["ms1"], Status: model.NodeDown, At: time.Now()})
	step(command.StepFinish, "", "node ms1") // down nodes are waited for
	step(command.StepLeave, "", "")
	step(command.StepFinish, "", "")
	for cl := range state.Clusters.All(c.Store.Snapshot()) {
		if string(cl.CACert) != "b" || cl.Trust.CA.Active != "b" || len(cl.Trust.CA.Keys) != 1 || cl.Trust.CA.Phase != model.PhaseSteady {
			t.Errorf("%+v", cl.Trust.CA)
		}
	}
}
