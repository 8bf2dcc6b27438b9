package raft

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// fitness holds the reasons why a node should not lead. Safe for concurrent use.
type fitness struct {
	mu      sync.Mutex
	reasons map[string]time.Time // since when
}

// set notes or drops a reason and tells whether that changed something.
func (f *fitness) set(reason string, bad bool, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, had := f.reasons[reason]; had == bad {
		return false
	}
	if bad {
		if f.reasons == nil {
			f.reasons = map[string]time.Time{}
		}
		f.reasons[reason] = now
	} else {
		delete(f.reasons, reason)
	}
	return true
}

func (f *fitness) list() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.reasons))
}

// Unfit says that this node should not lead because of reason, or, with bad false, that this reason is
// over. While there are reasons, the node hands leadership to a healthy master as soon as there is one,
// and lets others stand for election first; if no other can lead, it does. The reason is for people
// ("its clock is 3 s off") and must be the same text when it ends. It returns at once, may be repeated,
// and is safe for concurrent use.
func (n *Node) Unfit(reason string, bad bool) {
	if n.fitness.set(reason, bad, time.Now()) {
		n.log.Info("fitness to lead the cluster", "reason", reason, "bad", bad)
	}
}
