package command

import (
	"maps"
	"slices"
	"time"

	"appliance/node/model"
	"appliance/raft/state"
)

// What a restore has to be told that it accepts.
const (
	// RiskReplaceState says that all changes since the snapshot may be lost.
	RiskReplaceState = "replace-state"
	// RiskOtherCluster says that a new cluster takes the state of one whose masters are lost.
	RiskOtherCluster = "other-cluster"
)

// empty refuses a cluster that has something of its own that another cluster's state would replace.
func empty(s *state.Snapshot) *model.Error {
	if state.Apps.Count(s)+state.KVs.Count(s)+state.Secrets.Count(s)+state.Volumes.Count(s)+state.Tasks.Count(s) > 0 {
		return model.Errorf(model.CodeConflict, "the snapshot is of another cluster, and this one is not empty").Because("it has apps, tasks, keys, secrets or volumes of its own").
			Try("make a new cluster with appliance init on another machine, and restore it there; nothing was changed")
	}
	return nil
}

// adopt fills an empty cluster from the state of another one, whose masters are lost: apps and releases,
// environments, keys, API tokens, secrets as they are sealed, and the index of images. This cluster keeps
// what makes it one: identity, CA and rings of keys, nodes, join tokens, leases, history and audit log.
//
// Nothing of the other cluster's machines comes back: neither its nodes nor their tasks, services and
// checks, nor the places of volumes. Its sessions end, and with them the locks: nobody renews them here.
func adopt(tx *state.Tx, index uint64, from *state.Snapshot, at time.Time) (out Restored) {
	own := collect(state.APITokens.All(&tx.Snapshot)) // whoever set this cluster up goes on
	tx.Replace(index, from, kept...)
	for _, token := range own {
		back := *token
		state.APITokens.Put(tx, index, &back)
	}
	for _, now := range collect(state.Clusters.All(&tx.Snapshot)) {
		for then := range state.Clusters.All(from) {
			next := *now
			next.DefaultEnv, next.Autopilot = then.DefaultEnv, then.Autopilot
			state.Clusters.Put(tx, index, &next)
		}
	}
	for s := range state.Sessions.All(from) {
		_, _ = (&DestroySession{ID: s.ID, At: at}).apply(tx, index) // never fails
	}
	for n := range state.Nodes.All(from) {
		for _, s := range collect(state.Services.By(&tx.Snapshot, "node", n.Name)) {
			state.Services.Delete(tx, index, s.Key())
		}
		for _, c := range collect(state.Checks.By(&tx.Snapshot, "node", n.Name)) {
			state.Checks.Delete(tx, index, c.Key())
		}
	}
	for v := range state.Volumes.All(from) {
		out.Volumes = append(out.Volumes, v.Name)
	}
	out.SealedWith = strangeKeys(&tx.Snapshot)
	return out
}

// strangeKeys are the keys that secrets are sealed with and that are not in the cluster's ring.
func strangeKeys(s *state.Snapshot) []string {
	ids := map[string]bool{}
	for secret := range state.Secrets.All(s) {
		ids[secret.Key] = true
	}
	for c := range state.Clusters.All(s) {
		if c.Trust != nil {
			maps.DeleteFunc(ids, func(id string, _ bool) bool { return c.Trust.Seal.Has(id) })
		}
	}
	return slices.Sorted(maps.Keys(ids))
}
