package node

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"appliance/node/model"
	"appliance/node/pki"
	"appliance/raft/command"
	"appliance/raft/state"
)

const (
	// trustEvery is how often a node compares what it has with what the state
	// says; a change of the state wakes it earlier.
	trustEvery = time.Second
	// trustCall bounds one call to a master about keys.
	trustCall = 3 * time.Second
)

// trustKeeper brings a node's keys in line with the rings of the state: which
// CAs it believes, which of them has signed its certificate, the keys of the
// gossip, and on masters the private keys. It then says so in the log, which
// is what rotations wait for.
type trustKeeper struct {
	cfg      Config
	dir      pki.Dir
	keys     *pki.Keychain
	ca       *authority // masters only
	store    *state.Store
	proposer command.Proposer
	masters  func() []string // wire addresses
	client   *http.Client    // to masters, as this node
	joining  *http.Client    // to masters, on join connections
	gossip   func(keys [][]byte) error
	fresh    func() bool
	sync     func(context.Context) error // until the state shows all that was acknowledged
	log      *slog.Logger

	mu      sync.Mutex
	made    map[string]bool // keys of ours that the state need not know yet
	ring    [][]byte        // gossip keys as set last
	inTouch time.Time
	away    error // why this node may never be in touch again
	lastErr string
}

// Run keeps them in line until ctx ends.
func (k *trustKeeper) Run(ctx context.Context) error {
	k.inTouch = time.Now()
	for ctx.Err() == nil {
		snap := k.store.Snapshot()
		k.complain(errors.Join(k.catchUp(ctx), k.settle(ctx, snap)))
		wait, cancel := context.WithTimeout(ctx, trustEvery)
		_ = snap.Wait(wait, state.Clusters.Name)
		cancel()
	}
	return nil
}

// complain logs what is wrong, once until it changes.
func (k *trustKeeper) complain(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != k.lastErr && text != "" {
		k.log.Warn("the keys of this node are not as the cluster wants them yet", "err", text)
	}
	k.lastErr = text
}

func clusterOf(snap *state.Snapshot) *model.Cluster {
	for c := range state.Clusters.All(snap) {
		return c
	}
	return nil
}

// settle takes over what the state says and reports what is there then.
func (k *trustKeeper) settle(ctx context.Context, snap *state.Snapshot) error {
	c := clusterOf(snap)
	if c == nil || c.Trust == nil || c.Trust.CA.Active == "" {
		return nil
	}
	t := c.Trust
	err := errors.Join(k.believe(ctx, t), k.fetchKeys(ctx, t), k.settleGossip(ctx, t))
	if use := t.CA.Use(); use == pki.DigestOf(k.keys.CA()).String() || k.certain(ctx, t) {
		k.keys.Want(use) // not by an old state: it names a CA that the others may believe no more
	}
	if k.ca != nil {
		err = errors.Join(err, k.ca.offer(k.cfg), k.prune(ctx, t))
	}
	return errors.Join(err, k.report(ctx, snap))
}

// certain reports whether the state that t is of is not an old one. What a
// restarted node begins with may be: by it, keys may come but not go.
func (k *trustKeeper) certain(ctx context.Context, t *model.Trust) bool {
	if !k.fresh() {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, trustCall)
	defer cancel()
	if k.sync(ctx) != nil {
		return false
	}
	c := clusterOf(k.store.Snapshot())
	return c != nil && c.Trust == t
}

// believe takes the CAs of the state.
func (k *trustKeeper) believe(ctx context.Context, t *model.Trust) error {
	bundle := bundleOf(&t.CA)
	if string(bundle) == string(pki.Bundle(k.keys.CAs())) {
		return nil
	}
	for _, ca := range k.keys.CAs() {
		if !t.CA.Has(pki.DigestOf(ca).String()) && !k.certain(ctx, t) {
			return nil
		}
	}
	return k.take(bundle)
}

// take makes the CAs durable and believes them.
func (k *trustKeeper) take(bundle []byte) error { return k.keys.Trust(bundle, k.dir.SaveBundle) }

// fetchKeys gets the private keys that a master should hold.
func (k *trustKeeper) fetchKeys(ctx context.Context, t *model.Trust) error {
	if k.ca == nil {
		return nil
	}
	have, err := k.dir.KeyIDs()
	if err != nil {
		return err
	}
	var failed error
	for _, r := range []*model.Ring{&t.CA, &t.Seal} {
		for _, key := range r.Keys {
			if !slices.Contains(have, key.ID) {
				failed = errors.Join(failed, k.fetchKey(ctx, key))
			}
		}
	}
	return failed
}

// prune removes private keys of CAs that are believed no more. Retired seal
// keys stay: snapshots made with them can be restored.
func (k *trustKeeper) prune(ctx context.Context, t *model.Trust) error {
	if t.CA.Phase != model.PhaseSteady || pki.DigestOf(k.keys.CA()).String() != t.CA.Active {
		return nil
	}
	ids, err := k.dir.KeyIDs()
	if err != nil || !slices.Contains(ids, t.CA.Active) {
		return err
	}
	if err := k.dir.RemoveOldCAKey(); err != nil {
		return err
	}
	old := slices.DeleteFunc(ids, func(id string) bool { return len(id) != 2*len(pki.Digest{}) || t.CA.Has(id) })
	if len(old) == 0 || !k.certain(ctx, t) {
		return nil
	}
	k.ca.forget(t.CA.Has)
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, id := range old {
		err = errors.Join(err, k.dir.RemoveKey(id))
		delete(k.made, id)
	}
	return err
}

// holding is what the node has now.
func (k *trustKeeper) holding() (model.NodeTrust, error) {
	var has model.NodeTrust
	for _, ca := range k.keys.CAs() {
		has.CAs = append(has.CAs, pki.DigestOf(ca).String())
	}
	slices.Sort(has.CAs)
	has.Leaf = pki.DigestOf(k.keys.CA()).String()
	for _, key := range k.gossipKeys() {
		has.Gossip = append(has.Gossip, pki.GossipKeyID(key))
	}
	if k.ca == nil {
		return has, nil
	}
	var err error
	has.Keys, err = k.dir.KeyIDs()
	return has, err
}

// report tells the cluster, if it knows something else.
func (k *trustKeeper) report(ctx context.Context, snap *state.Snapshot) error {
	has, err := k.holding()
	n := state.Nodes.Get(snap, k.cfg.ID)
	if err != nil || n == nil || n.Trust.Equal(&has) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, trustCall)
	defer cancel()
	_, err = command.Do(ctx, k.proposer, &command.ReportTrust{Node: k.cfg.ID, Trust: has})
	if err != nil && ctx.Err() == nil {
		k.log.Debug("the cluster does not know yet which keys this node has", "err", err)
	}
	return nil // tried again; a cluster without a leader says so elsewhere
}

// makeKey makes the next key of a ring and keeps it on this master.
func (k *trustKeeper) makeKey(name model.RingName, now time.Time) (model.TrustKey, error) {
	key := model.TrustKey{AddedAt: now}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.made == nil {
		k.made = map[string]bool{}
	}
	switch name {
	case model.RingCA:
		ca, err := pki.NewCA(rand.Reader, now, k.keys.Identity().Cluster)
		if err != nil {
			return key, err
		}
		private, err := ca.KeyPEM()
		if err != nil {
			return key, err
		}
		key.ID, key.Cert = ca.Digest().String(), ca.CertPEM()
		k.made[key.ID] = true
		return key, k.dir.SaveKey(key.ID, private)
	case model.RingGossip:
		fresh, err := pki.NewGossipKey(rand.Reader)
		if err != nil {
			return key, err
		}
		key.ID = pki.GossipKeyID(fresh)
		k.made[key.ID] = true
		return key, k.setGossip(append(slices.Clone(k.ring), fresh))
	}
	seal, err := pki.NewSealKey(rand.Reader)
	if err != nil {
		return key, err
	}
	key.ID = seal.ID()
	k.made[key.ID] = true
	return key, k.dir.SaveKey(key.ID, seal[:])
}
