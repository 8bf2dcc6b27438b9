package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"appliance/node/model"
	"appliance/node/pki"
	"appliance/raft/command"
	"appliance/raft/state"
)

const (
	// keyLostAfter is how long a leader looks for the next key of a ring, which
	// an earlier leader has made, before it makes another one.
	keyLostAfter = 15 * time.Second
	// resealBatch bounds one entry: 200 wrapped keys are some 40 KiB.
	resealBatch = 200
	// leadTrustEvery is how often the leader looks where rotations are.
	leadTrustEvery = 500 * time.Millisecond
)

// lead moves the rotations on while this master leads. All that it knows is in
// the log, so the next leader goes on where this one stops.
func (k *trustKeeper) lead(ctx context.Context) {
	missing := map[string]time.Time{}
	for ctx.Err() == nil {
		snap := k.store.Snapshot()
		err := k.step(ctx, snap, missing, time.Now())
		if err != nil && ctx.Err() == nil && model.CodeOf(err) != model.CodeConflict {
			k.log.Debug("a key rotation does not get on", "err", err)
			pause(ctx, time.Second)
		}
		wait, cancel := context.WithTimeout(ctx, leadTrustEvery)
		_ = snap.Wait(wait, state.Clusters.Name, state.Nodes.Name, state.Secrets.Name)
		cancel()
	}
}

func (k *trustKeeper) step(ctx context.Context, snap *state.Snapshot, missing map[string]time.Time, now time.Time) error {
	c := clusterOf(snap)
	if c == nil {
		return nil
	}
	t := c.Trust.Clone()
	var failed error
	for _, name := range model.RingNames {
		failed = errors.Join(failed, k.stepRing(ctx, snap, t, name, missing, now))
	}
	return failed
}

// stepRing proposes what is to come next for one ring, if anything.
func (k *trustKeeper) stepRing(ctx context.Context, snap *state.Snapshot, t *model.Trust, name model.RingName, missing map[string]time.Time, now time.Time) error {
	r := t.Ring(name)
	c := &command.RotateKey{Ring: name, At: now.UTC()}
	switch {
	case r.Active == "":
		return k.adopt(ctx, c)
	case r.Phase == model.PhaseKey, r.Phase == model.PhaseSpread && k.lost(r.Next, missing, now):
		key, err := k.makeKey(name, c.At)
		if err != nil {
			return err
		}
		c.Step, c.Key = command.StepSpread, key
	case r.Phase == model.PhaseSpread && complete(snap, t, name):
		c.Step = command.StepSwitch
	case name == model.RingSeal && r.Phase != model.PhaseSpread:
		if more, err := k.reseal(ctx, snap, r.Use()); more || err != nil || r.Phase != model.PhaseSwitch {
			return err
		}
		c.Step = command.StepFinish
	case r.Phase == model.PhaseSwitch && complete(snap, t, name):
		c.Step = command.StepFinish
	default:
		return nil
	}
	_, err := command.Do(ctx, k.proposer, c)
	if err == nil {
		k.log.Info("key rotation", "ring", name, "step", c.Step)
	}
	return err
}

func complete(snap *state.Snapshot, t *model.Trust, name model.RingName) bool {
	for n := range state.Nodes.All(snap) {
		if _, waits := t.Lacking(name, n); waits {
			return false
		}
	}
	return true
}

// adopt names the keys that the cluster has; a seal key is made if it has none.
func (k *trustKeeper) adopt(ctx context.Context, c *command.RotateKey) error {
	c.Step = command.StepAdopt
	switch c.Ring {
	case model.RingCA:
		ca := k.keys.CA()
		c.Key = model.TrustKey{ID: pki.DigestOf(ca).String(), Cert: pki.Bundle(k.keys.CAs()[:1]), AddedAt: ca.NotBefore}
	case model.RingGossip:
		keys := k.gossipKeys()
		if len(keys) == 0 {
			return errors.New("this master has no gossip key")
		}
		c.Key = model.TrustKey{ID: pki.GossipKeyID(keys[0]), AddedAt: c.At}
	case model.RingSeal:
		ids, err := k.dir.KeyIDs()
		if err != nil {
			return err
		}
		i := slices.IndexFunc(ids, func(id string) bool { return len(id) > 5 && id[:5] == "seal-" })
		if i >= 0 {
			c.Key = model.TrustKey{ID: ids[i], AddedAt: c.At}
		} else if c.Key, err = k.makeKey(c.Ring, c.At); err != nil {
			return err
		}
	}
	_, err := command.Do(ctx, k.proposer, c)
	return err
}

// lost reports that the next key went with the leader that has made it: this
// one looks for it in vain for a while.
func (k *trustKeeper) lost(id string, missing map[string]time.Time, now time.Time) bool {
	has, err := k.holding()
	if err != nil || slices.Contains(has.Keys, id) || slices.Contains(has.Gossip, id) {
		delete(missing, id)
		return false
	}
	if missing[id].IsZero() {
		missing[id] = now
	}
	return now.Sub(missing[id]) > keyLostAfter
}

// reseal puts secrets that are sealed with another key under this one, some
// at a time, and reports whether there was one.
func (k *trustKeeper) reseal(ctx context.Context, snap *state.Snapshot, to string) (more bool, err error) {
	c := &command.Reseal{Key: to}
	var next pki.SealKey
	var failed error
	for s := range state.Secrets.All(snap) {
		if s.Key == to {
			continue
		}
		more = true
		if next == (pki.SealKey{}) {
			if next, err = k.sealKey(to); err != nil {
				return true, err
			}
		}
		old, err := k.sealKey(s.Key)
		if err == nil {
			var wrapped []byte
			if wrapped, err = old.Rewrap(rand.Reader, next, s.ID(), s.Version, s.Wrapped); err == nil {
				c.Secrets = append(c.Secrets, command.ResealedValue{ID: s.ID(), Version: s.Version, Wrapped: wrapped})
			}
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("secret %s: %w", s.ID(), err))
		}
		if len(c.Secrets) == resealBatch {
			break
		}
	}
	if len(c.Secrets) == 0 {
		return more, failed
	}
	if _, err := command.Do(ctx, k.proposer, c); err != nil {
		return true, err
	}
	return true, failed
}

// sealKey reads a seal key of this master.
func (k *trustKeeper) sealKey(id string) (pki.SealKey, error) {
	var key pki.SealKey
	raw, err := k.dir.Key(id)
	if err != nil {
		return key, err
	}
	if copy(key[:], raw) != len(key) {
		return key, fmt.Errorf("the seal key %s is damaged", id)
	}
	return key, nil
}
