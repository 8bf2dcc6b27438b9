package model

import (
	"slices"
	"time"
)

// Trust is by what the nodes of a cluster know each other and keep secrets:
// three rings of keys, each of which can be rotated while everything runs.
// Private parts are never here: masters keep them in files.
type Trust struct {
	CA     Ring `json:"ca"`     // certificates that nodes believe; the active one's key signs leaves
	Gossip Ring `json:"gossip"` // keys of the gossip; ids only
	Seal   Ring `json:"seal"`   // keys that secrets are sealed with, on masters; ids only
}

// RingName names a ring of Trust.
type RingName string

const (
	RingCA     RingName = "ca"
	RingGossip RingName = "gossip"
	RingSeal   RingName = "seal"
)

// RingNames are all rings, in the order in which people read them.
var RingNames = []RingName{RingCA, RingGossip, RingSeal}

// Ring returns the ring of that name, nil if there is none.
func (t *Trust) Ring(name RingName) *Ring {
	switch name {
	case RingCA:
		return &t.CA
	case RingGossip:
		return &t.Gossip
	case RingSeal:
		return &t.Seal
	}
	return nil
}

// Clone returns a copy that shares nothing that changes.
func (t *Trust) Clone() *Trust {
	if t == nil {
		return &Trust{}
	}
	next := *t
	for _, name := range RingNames {
		r := next.Ring(name)
		r.Keys, r.LeftBehind = slices.Clone(r.Keys), slices.Clone(r.LeftBehind)
	}
	return &next
}

// Phase is how far the rotation of a ring is.
type Phase string

const (
	PhaseSteady Phase = ""
	PhaseKey    Phase = "key"    // the leader is to make the next key
	PhaseSpread Phase = "spread" // every node that needs the next key is to have it
	PhaseSwitch Phase = "switch" // every user of the old key is to use the next one
)

// Ring is a set of keys of which one is in use.
type Ring struct {
	Keys   []TrustKey `json:"keys,omitempty"` // all that are believed, the oldest first
	Active string     `json:"active,omitempty"`
	Next   string     `json:"next,omitempty"` // from PhaseSpread on
	Phase  Phase      `json:"phase,omitempty"`
	Since  time.Time  `json:"since"` // of Phase
	// LeftBehind are ids of nodes that the operator does not want to wait for.
	LeftBehind []string `json:"leftBehind,omitempty"`
}

// TrustKey is the public side of a key.
type TrustKey struct {
	ID      string    `json:"id"`             // CA: SHA-256 of the certificate in hex; others: of the key, cut
	Cert    []byte    `json:"cert,omitempty"` // CA: PEM
	AddedAt time.Time `json:"addedAt"`
}

// Use is the id of the key that is to be used now.
func (r *Ring) Use() string {
	if r.Phase == PhaseSwitch {
		return r.Next
	}
	return r.Active
}

// Has reports whether the ring has the key.
func (r *Ring) Has(id string) bool {
	return slices.ContainsFunc(r.Keys, func(k TrustKey) bool { return k.ID == id })
}

// IDs lists the keys, the one in use first.
func (r *Ring) IDs() []string {
	var ids []string
	for _, k := range r.Keys {
		if k.ID == r.Use() {
			ids = append([]string{k.ID}, ids...)
		} else {
			ids = append(ids, k.ID)
		}
	}
	return ids
}

// NodeTrust is what a node has of the rings, as it says itself.
type NodeTrust struct {
	CAs    []string `json:"cas,omitempty"`    // digests of the CAs that it believes
	Leaf   string   `json:"leaf,omitempty"`   // digest of the CA that signed its certificate
	Gossip []string `json:"gossip,omitempty"` // ids of its gossip keys, the one that it sends with first
	Keys   []string `json:"keys,omitempty"`   // masters: ids of the private keys that they hold
}

// Equal compares.
func (t *NodeTrust) Equal(o *NodeTrust) bool {
	if t == nil || o == nil {
		return t == o
	}
	return t.Leaf == o.Leaf && slices.Equal(t.CAs, o.CAs) && slices.Equal(t.Gossip, o.Gossip) && slices.Equal(t.Keys, o.Keys)
}

// Lack is a node that a rotation waits for, or goes on without.
type Lack struct {
	Node   string     `json:"node"` // id
	Name   string     `json:"name"`
	Status NodeStatus `json:"status"`
	What   string     `json:"what"`
	// Waits says that the phase does not end without the node.
	Waits bool `json:"waits"`
}

// Lacking tells what n lacks for the present phase of the ring, "" if nothing.
//
// Nodes that are down do not hold up a spread: whatever they miss they fetch
// from a master when they return, before anything else. They do hold up the end
// of a CA's rotation, because with the old CA they could not return at all.
func (t *Trust) Lacking(name RingName, n *Node) (what string, waits bool) {
	r, has := t.Ring(name), n.Trust
	if has == nil {
		has = &NodeTrust{}
	}
	ready, master := n.Status == NodeReady, n.Role == RoleMaster
	if n.Status == NodeLeft {
		return "", false
	}
	switch {
	case r.Phase == PhaseSpread && name == RingCA && !slices.Contains(has.CAs, r.Next):
		return "does not believe the next CA yet", ready
	case r.Phase == PhaseSpread && name != RingGossip && master && !slices.Contains(has.Keys, r.Next):
		return "has not fetched the next key yet", ready
	case r.Phase == PhaseSpread && name == RingGossip && !slices.Contains(has.Gossip, r.Next):
		return "has not installed the next key yet", ready
	case r.Phase == PhaseSwitch && name == RingCA && has.Leaf != r.Next:
		return "has a certificate of the old CA", ready || !slices.Contains(r.LeftBehind, n.ID)
	case r.Phase == PhaseSwitch && name == RingGossip && (len(has.Gossip) == 0 || has.Gossip[0] != r.Next):
		return "still sends with the old key", ready
	}
	return "", false
}
