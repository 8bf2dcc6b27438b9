package command

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"appliance/node/model"
	"appliance/raft/archive"
	"appliance/raft/state"
)

// lost is a file of a cluster whose masters are lost.
func lost(t *testing.T) []byte {
	t.Helper()
	store, do := founded(t)
	do(&SetAutopilot{Settings: &model.Autopilot{MaxVoters: 5, DeadAfter: model.Duration(time.Minute)}, Voters: []string{"n1"}, At: noon})
	do(&PutAPIToken{Token: model.APIToken{ID: "theirs"}})
	do(&PutSecret{Secret: model.Secret{Name: "pw", Env: "test", Version: 1, Key: "seal-old", Value: []byte("x"), Wrapped: []byte("y")}})
	do(&PutSession{Session: model.Session{ID: "s1", Node: "n1", Behavior: "release"}})
	do(&PutSession{Session: model.Session{ID: "s2", Node: "n1", Behavior: "delete"}})
	do(&KVTxn{Ops: []KVOp{{Verb: "lock", Key: "lock", Session: "s1"}, {Verb: "lock", Key: "gone", Session: "s2"}}})
	do(&RegisterService{Service: &model.ExternalService{Node: "name-n1", ID: "a", Name: "a"}})
	do(&RegisterService{Service: &model.ExternalService{Node: "elsewhere", ID: "b", Name: "b"}})
	do(&PutVolume{Volume: model.Volume{Name: "data", Env: "test", Primary: "n1"}})
	return save(t, store)
}

func TestLostClusterGoesOnInANewOne(t *testing.T) {
	file := lost(t)
	store := state.New()
	m := NewMachine(store)
	index := uint64(0)
	do := func(c Command) Result { index++; return apply(t, m, index, c) }
	do(&InitCluster{Cluster: model.Cluster{ID: "new", Name: "ark", CACert: []byte("CA"), Level: Speaks, VIP: "10.0.0.1", Generation: 3,
		Trust: &model.Trust{Seal: model.Ring{Keys: []model.TrustKey{{ID: "seal-new"}}, Active: "seal-new"}}},
		APITokens: []model.APIToken{{ID: "ours"}}, JoinTokens: []model.JoinToken{{ID: "j"}}, Environments: []model.Environment{{Name: "unused"}}})
	do(&RegisterNode{Node: model.Node{ID: "x1", Name: "x1", Status: model.NodeReady, Level: Speaks}})
	before := *state.Clusters.Get(store.Snapshot(), "new")
	refused := func(name, id string, foreign bool, file []byte, want string) {
		t.Helper()
		stage(do, id, file, ChunkSize)
		was := rows(t, store)
		if res := do(&EndRestore{ID: id, Commit: true, At: noon, Foreign: foreign}); res.Err == nil || !strings.Contains(res.Err.Error(), want) {
			t.Errorf("%s: %v", name, res.Err)
		}
		if rows(t, store) != was {
			t.Errorf("%s: the state has changed", name)
		}
	}
	refused("without its name", "r1", false, file, RiskOtherCluster)
	refused("its own file", "r2", true, save(t, store), RiskReplaceState)
	stage(do, "r3", file, 100)
	res := do(audited(&EndRestore{ID: "r3", Commit: true, At: noon, Foreign: true}))
	if res.Err != nil {
		t.Fatal(res.Err)
	}
	var out Restored
	if err := res.Decode(&out); err != nil || !slices.Equal(out.SealedWith, []string{"seal-old"}) || !slices.Equal(out.Volumes, []string{"data"}) || out.Header.Cluster != "c" {
		t.Errorf("told: %+v", out)
	}
	s := store.Snapshot()
	now := state.Clusters.Get(s, "new")
	before.Meta, before.Autopilot = now.Meta, now.Autopilot
	free := state.KVs.Get(s, "lock")
	for name, ok := range map[string]bool{
		"it is still itself":                     state.Clusters.Count(s) == 1 && reflect.DeepEqual(before, *now),
		"with the settings of the other":         now.Autopilot != nil && now.Autopilot.MaxVoters == 5,
		"its nodes stay, and only they":          state.Nodes.Count(s) == 1 && state.Nodes.Get(s, "x1") != nil,
		"no task comes back":                     state.Tasks.Count(s) == 0,
		"the app does":                           state.Apps.Get(s, "/test/web") != nil,
		"keys do":                                string(state.KVs.Get(s, "a").Value) == "old",
		"both clusters' tokens are good":         state.APITokens.Get(s, "ours") != nil && state.APITokens.Get(s, "theirs") != nil,
		"join tokens are those of this CA":       state.JoinTokens.Get(s, "j") != nil && state.JoinTokens.Count(s) == 1,
		"environments are those of the file":     state.Environments.Get(s, "test") != nil && state.Environments.Get(s, "unused") == nil,
		"secrets come as they are sealed":        state.Secrets.Count(s) == 1,
		"sessions end":                           state.Sessions.Count(s) == 0,
		"with their locks":                       free != nil && free.Session == "" && state.KVs.Get(s, "gone") == nil,
		"services of lost nodes are gone":        len(collect(state.Services.By(s, "node", "name-n1"))) == 0,
		"services outside of the cluster stay":   len(collect(state.Services.By(s, "node", "elsewhere"))) == 1,
		"volumes have no place yet":              state.Volumes.Count(s) == 0,
		"the pieces are gone":                    state.Staged.Count(s) == 0,
		"history tells of it":                    strings.Contains(state.Events.Last(s).Text, "another cluster"),
		"so does the audit log":                  state.Audit.Count(s) == 1,
		"the proposal needs the level of fields": Level(&EndRestore{Foreign: true}) == 2 && Level(&EndRestore{}) == 1,
	} {
		if !ok {
			t.Errorf("not so: %s", name)
		}
	}
	refused("once more", "r4", true, file, "not empty")
	again := save(t, store) // what it is now can be saved and restored as ever
	if _, _, err := archive.Load(bytes.NewReader(again), int64(len(again))); err != nil {
		t.Error(err)
	}
}
