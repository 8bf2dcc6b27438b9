package chaos

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"appliance/node/api"
	"appliance/vagrant"
)

const (
	// handoverTime bounds the way from a sick disk to another leader, and with it the time without writes.
	handoverTime = 5 * time.Second
	// probeTime bounds one write of a prober, which then tries again, and probeEvery parts them.
	probeTime  = time.Second
	probeEvery = 50 * time.Millisecond
)

const handoverRule = "a leader with a sick disk hands over within 5 s, and follows"

// Handover is what was seen of a leader whose disk was sick.
type Handover struct {
	From  string        `json:"from"`     // machine
	Moved time.Duration `json:"moved_ns"` // from the fault to another leader; 0: none was seen
	Gap   time.Duration `json:"gap_ns"`   // the longest between two acknowledged writes through one of the other masters
}

// watch writes through each of the other masters and asks them who leads, until ctx ends.
func (h *Handover) watch(ctx context.Context, others []*node) {
	began := time.Now()
	var mu sync.Mutex
	var group sync.WaitGroup
	for _, n := range others {
		group.Go(func() {
			good := began
			for alive := true; alive; pause(ctx, probeEvery) {
				alive = ctx.Err() == nil
				try, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeTime)
				_, _, err := n.do(try, http.MethodPut, "/v1/kv/chaos/handover/"+n.name, time.Now().String())
				cancel()
				now := time.Now()
				mu.Lock()
				h.Gap = max(h.Gap, now.Sub(good))
				mu.Unlock()
				if err == nil {
					good = now
				}
			}
		})
		group.Go(func() {
			for ctx.Err() == nil {
				try, cancel := context.WithTimeout(ctx, probeTime)
				st, err := n.status(try)
				cancel()
				if err == nil && st.Leader == n.name { // what others believe may be old
					mu.Lock()
					if h.Moved == 0 {
						h.Moved = max(time.Since(began), 1)
					}
					mu.Unlock()
					return
				}
				pause(ctx, probeEvery)
			}
		})
	}
	group.Wait()
}

// led says whether the machine led when its disk got sick: who leads may have
// changed just then.
func (h *Handover) led() bool { return h.Moved == 0 || h.Moved > probeEvery }

func (h *Handover) judge(wrong *verdicts) {
	wrong.check(handoverRule, 1)
	switch {
	case h.Moved == 0:
		wrong.violate(handoverRule, "%s had a sick disk and went on leading", h.From)
	case h.Moved > handoverTime:
		wrong.violate(handoverRule, "%s had a sick disk and led for another %s", h.From, h.Moved.Round(time.Millisecond))
	}
	if h.Gap > handoverTime {
		wrong.violate(handoverRule, "%s had a sick disk, and for %s no write through another master was acknowledged", h.From, h.Gap.Round(time.Millisecond))
	}
}

// sick watches a leader whose disk is sick until the fault ends.
func (r *run) sick(ctx context.Context, a Active) Handover {
	h := Handover{From: a.Machines[0]}
	var others []*node
	for _, n := range r.load.nodes {
		m, _ := r.cluster.Machine(n.name)
		if m.Role == vagrant.RoleMaster && n.name != h.From {
			others = append(others, n)
		}
	}
	ctx, cancel := context.WithDeadline(ctx, a.Until)
	defer cancel()
	h.watch(ctx, others)
	return h
}

// follows looks whether an old leader is a follower that has the whole log.
func (r *run) follows(ctx context.Context, old string) {
	r.wrong.check(handoverRule, 1)
	var want api.Status
	err := again(ctx, settleTime, func(ctx context.Context) (err error) {
		if want.Index == 0 {
			want, err = r.control.Look(ctx)
		}
		for _, n := range r.load.nodes {
			if err == nil && n.name == old {
				err = n.behind(ctx, want)
			}
		}
		return err
	})
	if err != nil && ctx.Err() == nil {
		r.wrong.violate(handoverRule, "%v", err)
	}
}

// behind says what a node lacks to be a follower that has seen what want has.
func (n *node) behind(ctx context.Context, want api.Status) error {
	st, err := n.status(ctx)
	if err == nil && (!st.Fresh || st.Leader == "" || st.Leader == n.name || st.Index < want.Index) {
		err = fmt.Errorf("%s, whose disk was sick: fresh %v, at index %d of %d, with the leader %q", n.name, st.Fresh, st.Index, want.Index, st.Leader)
	}
	return err
}
