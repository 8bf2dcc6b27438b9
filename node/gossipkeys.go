package node

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"

	"appliance/node/model"
	"appliance/node/pki"
)

// openGossipKeys reads the keys of the last time. The state may name others
// by now; settleGossip fetches those.
func (k *trustKeeper) openGossipKeys() error {
	keys, err := k.dir.GossipKeys()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ring = keys
	return err
}

func (k *trustKeeper) gossipKeys() [][]byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.ring)
}

// setGossip makes keys durable and takes them into use, the first to send
// with. The caller holds mu.
func (k *trustKeeper) setGossip(keys [][]byte) error {
	if slices.EqualFunc(k.ring, keys, slices.Equal[[]byte]) {
		return nil
	}
	if err := k.dir.SaveGossipKeys(keys); err != nil {
		return err
	}
	if err := k.gossip(keys); err != nil {
		return err
	}
	k.ring = keys
	return nil
}

// settleGossip installs the keys of the ring. A node that was away fetches
// them from a master, so that no rotation can lock it out.
func (k *trustKeeper) settleGossip(ctx context.Context, t *model.Trust) error {
	r := &t.Gossip
	if len(r.Keys) == 0 {
		return nil
	}
	have := map[string][]byte{}
	for _, key := range k.gossipKeys() {
		have[pki.GossipKeyID(key)] = key
	}
	ids := r.IDs()
	var failed error
	if slices.ContainsFunc(ids, func(id string) bool { return have[id] == nil }) {
		failed = k.fetchGossip(ctx, have)
	}
	goes := slices.ContainsFunc(k.gossipKeys(), func(key []byte) bool { return !r.Has(pki.GossipKeyID(key)) })
	if goes && !k.certain(ctx, t) {
		return failed
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	var keys [][]byte
	for _, id := range ids {
		if have[id] == nil {
			continue
		}
		keys = append(keys, have[id])
	}
	if len(keys) == 0 {
		return failed // keep what there is
	}
	for _, key := range k.ring {
		if id := pki.GossipKeyID(key); k.made[id] && !r.Has(id) && r.Phase == model.PhaseKey {
			keys = append(keys, key) // made here, not in this state yet
		}
	}
	return errors.Join(failed, k.setGossip(keys))
}

// pathGossip is where a master hands the gossip keys to nodes of the cluster.
const pathGossip = "/rpc/trust/gossip"

// fetchGossip adds the keys that the masters have.
func (k *trustKeeper) fetchGossip(ctx context.Context, have map[string][]byte) error {
	return k.askMasters(ctx, pathGossip, func(raw []byte) error {
		var keys [][]byte
		if err := json.Unmarshal(raw, &keys); err != nil {
			return err
		}
		for _, key := range keys {
			have[pki.GossipKeyID(key)] = key
		}
		return nil
	}, func() bool { return false })
}

func (k *trustKeeper) serveGossip(w http.ResponseWriter, r *http.Request) {
	if _, err := k.member(r); err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	_ = json.NewEncoder(w).Encode(k.gossipKeys()) // the caller is gone if this fails
}
