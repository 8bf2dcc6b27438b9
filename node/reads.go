package node

import (
	"context"
	"net/http"
	"strings"
	"time"

	"appliance/node/api"
)

const (
	// readWait is how long a read waits for a leader before it is answered from
	// what this node knows: an election is over by then. It counts from when the
	// last one was known.
	readWait = 2 * time.Second
	// leastReadWait is what a read waits in any case: this node may be wrong in
	// that nobody leads. A confirmation takes milliseconds.
	leastReadWait = 200 * time.Millisecond
)

// confirm waits until a read of the local state is linearizable. Where nobody
// confirms that in time, it returns when this node last knew a leader, zero if
// it has not since it started.
func (n *Node) confirm(ctx context.Context) (asOf time.Time, confirmed bool) {
	wait := readWait
	if n.leader() == "" {
		wait = max(leastReadWait, readWait-time.Since(n.lastLed()))
	}
	within, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if n.core.Linearize(within) == nil {
		return time.Time{}, true
	}
	return n.lastLed(), false
}

// lastLed is when this node last knew a leader, to about a second.
func (n *Node) lastLed() time.Time {
	if at := n.led.Load(); at != nil {
		return *at
	}
	return time.Time{}
}

// noteLeader remembers that there is a leader. The watchdogs call it.
func (n *Node) noteLeader(now time.Time) {
	if n.leader() != "" {
		n.led.Store(&now)
	}
}

// current is the API's rule for the reads of a dialect that has none of its
// own: linearizable, stale by ?stale, and marked so while nobody leads.
func (n *Node) current(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reads := r.Method == http.MethodGet || r.Method == http.MethodHead
		if reads && strings.HasPrefix(r.URL.Path, "/v2/") && r.URL.Path != "/v2/events" && !r.URL.Query().Has("stale") {
			if asOf, confirmed := n.confirm(r.Context()); !confirmed {
				api.MarkStale(w.Header(), asOf)
			}
		}
		h.ServeHTTP(w, r)
	})
}
