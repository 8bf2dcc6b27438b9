package command

import (
	"time"

	"appliance/node/model"
	"appliance/raft/state"
)

// LeaseSkew is how far the clocks of two nodes may be apart without harm to
// leases.
const LeaseSkew = 500 * time.Millisecond

// levelLeaseNames is the protocol level from which every grant of a lease has an end of its own, also if
// the clock by which it is extended is behind that of the grant before.
const levelLeaseNames = 2

// TakeLease takes a free or expired lease, or extends one's own. At is the
// proposer's clock. The next holder may propose by another clock, which is up
// to LeaseSkew ahead: HeldUntil tells how long one may count on the lease.
type TakeLease struct {
	Name   string        `json:"name"`
	Holder string        `json:"holder"`
	At     time.Time     `json:"at"`
	TTL    time.Duration `json:"ttl"`
}

func (c *TakeLease) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	old := state.Leases.Get(&tx.Snapshot, c.Name)
	next := model.Lease{Name: c.Name, Holder: c.Holder, Epoch: 1, Expires: c.At.Add(c.TTL)}
	if old != nil {
		if old.Holder != c.Holder && c.At.Before(old.Expires) {
			return nil, model.Errorf(model.CodeConflict, "lease %s is held", c.Name).
				Because("by %s until %s", old.Holder, old.Expires.UTC().Format(time.RFC3339Nano))
		}
		next.Epoch = old.Epoch
		switch {
		case old.Holder != c.Holder:
			next.Epoch++
		case !next.Expires.After(old.Expires):
			next.Expires = old.Expires // a late attempt must not shorten what the holder was promised since
			if ClusterLevel(&tx.Snapshot) >= levelLeaseNames {
				next.Expires = next.Expires.Add(1) // so that a late ReleaseLease of the old one does not name this one
			}
		}
	}
	state.Leases.Put(tx, index, &next)
	return next, nil
}

// HeldUntil is when the holder must have stopped, by its own clock, if it
// asked at asked. With a TTL of no more than LeaseSkew it never holds at all.
func (c *TakeLease) HeldUntil(asked time.Time) time.Time { return asked.Add(c.TTL - LeaseSkew) }

// ReleaseLease gives up one's own lease; anybody else's is left alone.
type ReleaseLease struct {
	Name   string `json:"name"`
	Holder string `json:"holder"`
	// Expires, if given, is the end of the lease that the holder gives up: one that it has taken since
	// is left alone, however late this comes.
	Expires time.Time `json:"expires,omitzero" level:"2"`
}

func (c *ReleaseLease) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	old := state.Leases.Get(&tx.Snapshot, c.Name)
	if old == nil || old.Holder != c.Holder || !c.Expires.IsZero() && !old.Expires.Equal(c.Expires) {
		return nil, nil
	}
	free := *old
	free.Expires = time.Time{}
	state.Leases.Put(tx, index, &free)
	return nil, nil
}
