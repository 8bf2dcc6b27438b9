package command

import (
	"slices"
	"time"

	"appliance/node/model"
	"appliance/raft/state"
)

// Steps of a key rotation.
const (
	StepAdopt  = "adopt"  // name the keys that a cluster already has
	StepBegin  = "begin"  // an operator wants another key
	StepSpread = "spread" // the leader has made it; again, if it was lost with its maker
	StepSwitch = "switch" // everybody has it
	StepFinish = "finish" // everybody uses it: the old ones go
	StepLeave  = "leave"  // an operator does not want to wait for some nodes
	StepAbort  = "abort"  // an operator gives up, before anybody uses the next key
)

// RotateKey is one step of a rotation. Whether it may be taken is decided
// here, by what nodes have reported in the log, so that no leader who knows
// less than the log can go too far.
type RotateKey struct {
	Ring  model.RingName `json:"ring"`
	Step  string         `json:"step"`
	Key   model.TrustKey `json:"key"`             // of StepAdopt and StepSpread
	Nodes []string       `json:"nodes,omitempty"` // ids, of StepLeave
	At    time.Time      `json:"at"`
}

func (c *RotateKey) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	var cluster *model.Cluster
	for old := range state.Clusters.All(&tx.Snapshot) {
		next := *old
		cluster = &next
	}
	if cluster == nil {
		return nil, model.Errorf(model.CodeUnavailable, "the cluster has no first entry yet").Try("try again in a moment")
	}
	cluster.Trust = cluster.Trust.Clone()
	r := cluster.Trust.Ring(c.Ring)
	if r == nil {
		return nil, model.Errorf(model.CodeInvalid, "there is no key ring %q", c.Ring)
	}
	before := r.Phase
	text, refusal := c.turn(&tx.Snapshot, cluster.Trust, r)
	if refusal != nil {
		return nil, refusal
	}
	if c.Ring == model.RingCA && c.Step == StepFinish {
		cluster.CACert = r.Keys[0].Cert
		for _, tok := range collect(state.JoinTokens.All(&tx.Snapshot)) {
			if tok.CreatedAt.Before(r.Since) { // it names the old CA: nobody could check it any more
				state.JoinTokens.Delete(tx, index, tok.ID)
			}
		}
	}
	if r.Phase != before || c.Step == StepSpread {
		r.Since = c.At
	}
	state.Clusters.Put(tx, index, cluster)
	if text != "" {
		record(tx, index, c.At, "trust", string(c.Ring), text, nil)
	}
	return nil, nil
}

// turn changes the ring and says so for the history.
func (c *RotateKey) turn(s *state.Snapshot, t *model.Trust, r *model.Ring) (string, *model.Error) {
	wrong := func() (string, *model.Error) {
		return "", model.Errorf(model.CodeConflict, "the rotation of the %s key is not at that point", c.Ring).
			Because("its phase is %q", r.Phase).Try("see: appliance ca")
	}
	switch c.Step {
	case StepAdopt:
		if r.Active != "" || c.Key.ID == "" {
			return wrong()
		}
		r.Keys, r.Active = []model.TrustKey{c.Key}, c.Key.ID
		return "", nil
	case StepBegin:
		if r.Phase != model.PhaseSteady {
			return "", model.Errorf(model.CodeConflict, "a rotation of the %s key is under way", c.Ring).Try("see how far it is: appliance ca")
		}
		if r.Active == "" {
			return "", model.Errorf(model.CodeUnavailable, "the cluster does not know its %s key yet", c.Ring).Try("try again when all nodes run this version")
		}
		r.Phase, r.LeftBehind = model.PhaseKey, nil
		return "rotation begins", nil
	case StepSpread:
		if r.Phase != model.PhaseKey && r.Phase != model.PhaseSpread || c.Key.ID == "" || r.Has(c.Key.ID) {
			return wrong()
		}
		r.Keys = slices.DeleteFunc(r.Keys, func(k model.TrustKey) bool { return k.ID == r.Next })
		r.Keys, r.Next, r.Phase = append(r.Keys, c.Key), c.Key.ID, model.PhaseSpread
		return "the next key is there; waiting until every node has it", nil
	case StepSwitch:
		if r.Phase != model.PhaseSpread {
			return wrong()
		}
		if refusal := everybody(s, t, c.Ring); refusal != nil {
			return "", refusal
		}
		r.Phase = model.PhaseSwitch
		return "every node has the next key and goes over to it", nil
	case StepFinish:
		return c.finish(s, t, r, wrong)
	case StepLeave:
		if r.Phase != model.PhaseSwitch || len(c.Nodes) == 0 {
			return wrong()
		}
		for _, id := range c.Nodes {
			n := state.Nodes.Get(s, id)
			if n == nil {
				return "", unknownNode(id)
			}
			if n.Status == model.NodeReady {
				return "", model.Errorf(model.CodeConflict, "node %s is alive", n.Name).Try("it only needs a moment: see appliance ca")
			}
		}
		r.LeftBehind = append(r.LeftBehind, c.Nodes...)
		return "the rotation does not wait for nodes that are down", nil
	case StepAbort:
		if r.Phase != model.PhaseKey && r.Phase != model.PhaseSpread {
			return wrong()
		}
		r.Keys = slices.DeleteFunc(r.Keys, func(k model.TrustKey) bool { return k.ID == r.Next })
		r.Next, r.Phase = "", model.PhaseSteady
		return "rotation was given up; nothing has changed", nil
	}
	return "", model.Errorf(model.CodeInvalid, "a key rotation has no step %q", c.Step)
}

func (c *RotateKey) finish(s *state.Snapshot, t *model.Trust, r *model.Ring, wrong func() (string, *model.Error)) (string, *model.Error) {
	if r.Phase != model.PhaseSwitch {
		return wrong()
	}
	if refusal := everybody(s, t, c.Ring); refusal != nil {
		return "", refusal
	}
	if c.Ring == model.RingSeal {
		for secret := range state.Secrets.All(s) {
			if secret.Key != r.Next {
				return "", model.Errorf(model.CodeConflict, "secret %s is sealed with another key", secret.ID())
			}
		}
	}
	r.Keys = slices.DeleteFunc(r.Keys, func(k model.TrustKey) bool { return k.ID != r.Next })
	r.Active, r.Next, r.Phase, r.LeftBehind = r.Next, "", model.PhaseSteady, nil
	return "rotation is done; the old key counts no more", nil
}

// everybody refuses as long as a node lacks what the phase is about.
func everybody(s *state.Snapshot, t *model.Trust, ring model.RingName) *model.Error {
	for n := range state.Nodes.All(s) {
		if what, waits := t.Lacking(ring, n); waits {
			return model.Errorf(model.CodeConflict, "the rotation waits for node %s", n.Name).Because("it %s", what)
		}
	}
	return nil
}

// ReportTrust is what a node says of the keys that it has.
type ReportTrust struct {
	Node  string          `json:"node"`
	Trust model.NodeTrust `json:"trust"`
}

func (c *ReportTrust) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	old := state.Nodes.Get(&tx.Snapshot, c.Node)
	if old == nil {
		return nil, unknownNode(c.Node)
	}
	if old.Trust.Equal(&c.Trust) {
		return nil, nil
	}
	n := *old
	n.Trust = &c.Trust
	state.Nodes.Put(tx, index, &n)
	return nil, nil
}
