package api_test

import (
	"net/http"
	"strings"
	"testing"

	"appliance/node/api"
	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
)

// electorate is a cluster whose masters vote; ms2 is away, as ever, and what is named too.
type electorate struct {
	cluster
	away string
}

func (electorate) Votes() []string { return []string{"id-mm1", "id-mm2", "id-mm3"} }
func (e electorate) Alive(node string) bool {
	return e.cluster.Alive(node) && !strings.Contains(e.away, node)
}
func down(h *house, names ...string) {
	for _, n := range names {
		h.Status(n, model.NodeDown)
	}
}

func TestRemoveNode(t *testing.T) {
	cases := []struct {
		name, node, away, risk string
		prepare                func(h *house)
		status                 int
		says                   string
	}{
		{name: "a living agent", node: "ms1", status: 409, says: "is alive"},
		{name: "itself", node: "mm1", status: 409, says: "is alive"},
		{name: "a silent one", node: "ms2", status: 409, says: "not been given up yet"},
		{name: "a dead agent", node: "ms2", prepare: func(h *house) { down(h, "ms2") }, status: 200},
		{name: "one that has left", node: "ms1", prepare: func(h *house) { h.Status("ms1", model.NodeLeft) }, status: 200},
		{name: "a dead master of three", node: "mm2", away: "id-mm2", prepare: func(h *house) { down(h, "mm2") }, status: 200},
		{name: "a dead master while another is silent", node: "mm2", away: "id-mm2 id-mm3", prepare: func(h *house) { down(h, "mm2") }, status: 409, says: "1 of the 2 masters"},
		{name: "the only copy", node: "ms2", prepare: lonely, status: 403, says: "volume data"},
		{name: "the only copy, by name", node: "ms2", prepare: lonely, risk: "?accept-risk=" + api.RiskLoseLocalData, status: 200},
		{name: "the only copy, with another word", node: "ms2", prepare: lonely, risk: "?accept-risk=yes", status: 403, says: "volume data"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			h := newHouse(t)
			h.Node("mm2", "192.0.2.2", model.RoleMaster)
			h.Node("mm3", "192.0.2.3", model.RoleMaster)
			h.server.Cluster = electorate{cluster{h}, tc.away}
			if tc.prepare != nil {
				tc.prepare(h)
			}
			var f api.Failure
			resp := h.call(t, http.MethodDelete, "/nodes/"+tc.node+tc.risk, "", &f)
			gone := state.Nodes.Get(h.Store.Snapshot(), "id-"+tc.node) == nil
			if resp.StatusCode != tc.status || gone != (tc.status == 200) {
				t.Fatalf("%s, gone: %v, %v", resp.Status, gone, f.Error)
			}
			if f.Error != nil && (!strings.Contains(f.Error.Error(), tc.says) || f.Error.Fix == "") {
				t.Errorf("it says %q, fix %q", f.Error, f.Error.Fix)
			}
		})
	}
}

func lonely(h *house) {
	h.Must(&command.PutVolume{Volume: model.Volume{Name: "data", Primary: "id-ms2", InSync: []string{"id-ms2"}}})
	down(h, "ms2")
}
