package api

import (
	"context"
	"net/http"
	"time"
)

// StaleHeader says that nobody confirmed that an answer is current, and as of
// when it is (RFC 3339), or StaleUnknown.
const (
	StaleHeader  = "X-Appliance-Stale"
	StaleUnknown = "unknown"
)

// current has a reading handler see everything that was acknowledged anywhere
// before the request. While nobody leads it answers from what this node knows
// and says so by StaleHeader; with ?consistent it refuses then, and with
// ?stale it asks nobody.
func (s *Server) current(fn handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		switch q := r.URL.Query(); {
		case q.Has("consistent"):
			ctx, cancel := context.WithTimeout(r.Context(), writeTimeout)
			defer cancel()
			if err := s.Cluster.Sync(ctx); err != nil {
				return err
			}
		case !q.Has("stale"):
			if asOf, confirmed := s.Cluster.Confirm(r.Context()); !confirmed {
				MarkStale(w.Header(), asOf)
			}
		}
		return fn(w, r)
	}
}

// MarkStale notes in the header of an answer as of when it is.
func MarkStale(h http.Header, asOf time.Time) {
	text := StaleUnknown
	if !asOf.IsZero() {
		text = asOf.UTC().Format(time.RFC3339)
	}
	h.Set(StaleHeader, text)
}
