package chaos

import (
	"slices"
	"time"

	"appliance/node/api"
	"appliance/node/lab/fault"
	"appliance/node/model"
)

// view is what is known of the masters' ability to agree.
type view struct {
	masters []string           // that vote
	down    map[string]bool    // cannot take part
	cut     map[[2]string]bool // frames from the first do not reach the second
}

func newView(masters []string) *view {
	return &view{masters, map[string]bool{}, map[[2]string]bool{}}
}

const (
	// deafLoss is the loss in percent from which a machine counts as lost.
	deafLoss = 50
	// deadDelay is the time of an fsync from which a disk counts as dead: an
	// election times out before it.
	deadDelay = 400 * time.Millisecond
	// starvingRate is the rate in bytes a second below which a link counts as
	// dead: heartbeats wait behind entries and gossip longer than an election.
	starvingRate = 20_000
	// strangeClock is how wrong a clock may be until its machine counts as lost:
	// the others' new certificates are dated back by as much (node/pki).
	strangeClock = 10 * time.Minute
)

// suffer adds a fault of the machine. owner tells a machine by its hardware
// address.
func (v *view) suffer(machine string, f fault.Fault, owner func(mac string) string) {
	switch {
	case f.Kind == fault.Kill, f.Kind == fault.Pause, f.Kind == fault.HungDisk, f.Kind == fault.FullDisk,
		f.Kind == fault.Address, // its node starts again, and the others must find it
		f.Kind == fault.SlowDisk && f.Delay >= deadDelay, f.Kind == fault.Loss && f.Percent >= deafLoss,
		f.Kind == fault.SlowLink && f.Rate < starvingRate, f.Kind == fault.Clock && f.Offset.Abs() >= strangeClock:
		v.down[machine] = true
	case f.Kind == fault.Cut:
		for _, mac := range f.In {
			v.cut[[2]string{owner(mac), machine}] = true
		}
		for _, mac := range f.Out {
			v.cut[[2]string{machine, owner(mac)}] = true
		}
	}
}

// agree is the size of the largest set of masters that work and reach each
// other.
func (v *view) agree() int {
	best := 0
	var grow func(set []string, rest []string)
	grow = func(set, rest []string) {
		best = max(best, len(set))
		for i, m := range rest {
			if v.down[m] || slices.ContainsFunc(set, func(o string) bool { return v.cut[[2]string{m, o}] || v.cut[[2]string{o, m}] }) {
				continue
			}
			grow(append(slices.Clone(set), m), rest[i+1:])
		}
	}
	grow(nil, v.masters)
	return best
}

// allow refuses a plan after which no majority of the masters can agree,
// unless as many can as before. The view suffers it.
func (v *view) allow(plan map[string]fault.Fault, owner func(mac string) string) error {
	before := v.agree()
	for m, f := range plan {
		if f.Kind == PowerOff {
			v.down[m] = true
		}
		v.suffer(m, f, owner)
	}
	if v.quorum() || v.agree() == before {
		return nil
	}
	return model.Errorf(model.CodeConflict, "with this fault %d of %d masters could still agree: no majority", v.agree(), len(v.masters)).
		Because("%d can now; the cluster would take no changes until the fault is over", before).
		Try("choose another target, or accept it: --accept-risk=%s", RiskQuorum)
}

// quorum says whether a majority of the masters can agree.
func (v *view) quorum() bool { return v.agree() > len(v.masters)/2 }

// heed takes the leader's word for who votes, and for who of them lives: a
// master whose log is damaged, that starts again and again or is being rebuilt
// runs, and agrees to nothing. A living voter must name that leader itself.
// answers are the masters' own words, by machine; without a leader's among
// them nothing is known.
func (v *view) heed(answers map[string]api.Status) {
	var leader *api.Status
	for name, st := range answers {
		if st.Leader == name && (leader == nil || st.Index > leader.Index) { // one that was deposed may not know yet
			leader = &st
		}
	}
	if leader == nil {
		return
	}
	var voters []string
	for _, n := range leader.Nodes {
		if n.Vote != api.VoteVoter {
			continue
		}
		voters = append(voters, n.Name)
		if !n.Alive || answers[n.Name].Leader != leader.Leader {
			v.down[n.Name] = true
		}
	}
	if len(voters) > 0 {
		v.masters = voters
	}
}
