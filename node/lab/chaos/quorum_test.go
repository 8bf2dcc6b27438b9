package chaos

import (
	"testing"
	"time"

	"appliance/node/api"
	"appliance/node/lab/fault"
	"appliance/node/model"
)

func TestQuorum(t *testing.T) {
	owner := func(mac string) string { return mac } // the names are their own addresses
	type suffering struct {
		machine string
		fault   fault.Fault
	}
	cut := func(to string, from ...string) suffering {
		return suffering{to, fault.Fault{Kind: fault.Cut, In: from}}
	}
	kind := func(m, k string) suffering { return suffering{m, fault.Fault{Kind: k}} }
	slow := func(m string) suffering { return suffering{m, fault.Fault{Kind: fault.SlowLink, Rate: 1000}} }
	clock := func(m string, off time.Duration) suffering {
		return suffering{m, fault.Fault{Kind: fault.Clock, Offset: off}}
	}
	for _, tt := range []struct {
		name   string
		faults []suffering
		agree  int
	}{
		{"well", nil, 3},
		{"one killed", []suffering{kind("mm1", fault.Kill)}, 2},
		{"one killed, one paused", []suffering{kind("mm1", fault.Kill), kind("mm2", fault.Pause)}, 1},
		{"an agent killed", []suffering{kind("ms1", fault.Kill)}, 3},
		{"one cut off", []suffering{cut("mm1", "mm2", "mm3"), cut("mm2", "mm1"), cut("mm3", "mm1")}, 2},
		{"all cut from each other", []suffering{cut("mm1", "mm2", "mm3"), cut("mm2", "mm1", "mm3"), cut("mm3", "mm1", "mm2")}, 1},
		{"one way is enough to part", []suffering{cut("mm1", "mm2"), cut("mm2", "mm3"), cut("mm3", "mm1")}, 1},
		{"the other way round", []suffering{{"mm1", fault.Fault{Kind: fault.Cut, Out: []string{"mm2"}}}, kind("mm3", fault.HungDisk)}, 1},
		{"one cut off, another's disk full", []suffering{cut("mm1", "mm2", "mm3"), kind("mm2", fault.FullDisk)}, 1},
		{"a little loss everywhere", []suffering{{"mm1", fault.Fault{Kind: fault.Loss, Percent: 10}}, {"mm2", fault.Fault{Kind: fault.Loss, Percent: 10}}}, 3},
		{"one moves", []suffering{kind("mm1", fault.Address)}, 2},
		{"two move", []suffering{kind("mm1", fault.Address), kind("mm2", fault.Address)}, 1},
		{"much loss", []suffering{{"mm1", fault.Fault{Kind: fault.Loss, Percent: 80}}}, 2},
		{"a slow disk votes", []suffering{{"mm1", fault.Fault{Kind: fault.SlowDisk, Delay: 100 * time.Millisecond}}}, 3},
		{"a very slow one does not", []suffering{{"mm1", fault.Fault{Kind: fault.SlowDisk, Delay: time.Second}}}, 2},
		{"a slow link passes heartbeats", []suffering{{"mm1", fault.Fault{Kind: fault.SlowLink, Rate: 100_000}}}, 3},
		{"a starving one does not", []suffering{slow("mm1"), slow("mm2")}, 1},
		{"a clock that is minutes off", []suffering{clock("mm1", 2*time.Minute), clock("mm2", -2*time.Minute)}, 3},
		{"clocks that certificates do not bear", []suffering{clock("mm1", 48*time.Hour), clock("mm2", -48*time.Hour)}, 1},
		{"a clock that is as far back as certificates bear", []suffering{clock("mm1", -10*time.Minute)}, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := newView([]string{"mm1", "mm2", "mm3"})
			for _, f := range tt.faults {
				v.suffer(f.machine, f.fault, owner)
			}
			if got := v.agree(); got != tt.agree || v.quorum() != (tt.agree >= 2) {
				t.Errorf("%d can agree, quorum %v; want %d", got, v.quorum(), tt.agree)
			}
		})
	}
}

func TestRestartsAndWipesNeedTheQuorum(t *testing.T) {
	for _, tt := range []struct {
		name string
		down []string
		gone []string // by the plan
		ok   bool
	}{
		{"one of three", nil, []string{"mm1"}, true},
		{"two of three", nil, []string{"mm1", "mm2"}, false},
		{"a second one", []string{"mm3"}, []string{"mm1"}, false},
		{"one that is down", []string{"mm3"}, []string{"mm3"}, true},
		{"an agent", []string{"mm3"}, []string{"ms1"}, true},
		{"an agent when no majority is left", []string{"mm2", "mm3"}, []string{"ms1"}, true},
		{"a dead one when no majority is left", []string{"mm2", "mm3"}, []string{"mm2"}, true},
		{"the last one", []string{"mm2", "mm3"}, []string{"mm1"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := newView([]string{"mm1", "mm2", "mm3"})
			for _, m := range tt.down {
				v.down[m] = true
			}
			if err := v.allow(gone(tt.gone), nil); (err == nil) != tt.ok {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestOnlyLivingVotersCount(t *testing.T) {
	node := func(name string, alive bool, vote string) api.NodeView {
		return api.NodeView{Node: &model.Node{Name: name}, Alive: alive, Vote: vote}
	}
	says := func(leader string, nodes ...api.NodeView) api.Status { return api.Status{Leader: leader, Nodes: nodes} }
	one, two, three := node("mm1", true, api.VoteVoter), node("mm2", true, api.VoteVoter), node("mm3", true, api.VoteVoter)
	agent := node("ms1", true, "")
	for _, tt := range []struct {
		name    string
		answers map[string]api.Status
		agree   int
		spared  string // a machine that can be taken away
		needed  string // and one that cannot
	}{
		{"all vote", map[string]api.Status{"mm1": says("mm1", one, two, three, agent), "mm2": says("mm1"), "mm3": says("mm1")}, 3, "mm2", ""},
		{"one is dead to the leader", map[string]api.Status{"mm1": says("mm1", one, two, node("mm3", false, api.VoteVoter)), "mm2": says("mm1"), "mm3": says("mm1")}, 2, "mm3", "mm2"},
		{"one starts again and again", map[string]api.Status{"mm1": says("mm1", one, two, three), "mm2": says("mm1")}, 2, "mm3", "mm1"},
		{"one does not follow", map[string]api.Status{"mm1": says("mm1", one, two, three), "mm2": says("mm1"), "mm3": says("")}, 2, "mm3", "mm2"},
		{"one was rebuilt and has no vote yet", map[string]api.Status{"mm1": says("mm1", one, two, node("mm3", false, api.VoteVoter), node("mm3", true, api.VoteStandby)),
			"mm2": says("mm1"), "mm3": says("mm1")}, 2, "mm3", "mm2"},
		{"two vote, and both are needed", map[string]api.Status{"mm1": says("mm1", one, two, node("mm3", true, api.VoteStandby)), "mm2": says("mm1"), "mm3": says("mm1")}, 2, "mm3", "mm2"},
		{"one has been deposed", map[string]api.Status{"mm1": says("mm1", one, two, node("mm3", false, api.VoteVoter)),
			"mm2": {Leader: "mm2", Index: 9, Nodes: []api.NodeView{node("mm1", false, api.VoteVoter), two, three}}, "mm3": says("mm2")}, 2, "mm1", "mm3"},
		{"nobody leads", map[string]api.Status{"mm1": says(""), "mm2": says("mm3", one)}, 3, "mm1", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			look := func() *view {
				v := newView([]string{"mm1", "mm2", "mm3"})
				v.heed(tt.answers)
				return v
			}
			if got := look().agree(); got != tt.agree {
				t.Errorf("%d agree, want %d", got, tt.agree)
			}
			if err := look().allow(gone([]string{tt.spared}), nil); err != nil {
				t.Errorf("%s can be spared: %v", tt.spared, err)
			}
			if tt.needed != "" && look().allow(gone([]string{tt.needed}), nil) == nil {
				t.Errorf("%s is needed", tt.needed)
			}
		})
	}
}
