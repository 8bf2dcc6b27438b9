package chaos

import (
	"testing"
	"time"

	"appliance/node/lab/fault"
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
