package lb

import (
	"sync"
	"sync/atomic"
	"time"
)

// Counts is what a proxy did since it started. It is plain data: encode it as
// JSON, send it, and Merge those of several nodes.
type Counts struct {
	Services map[string]ServiceCounts `json:"services"`
}

// ServiceCounts holds one service's requests by release. Requests that met no
// backend are under release "". Requests for unknown hosts are under service "".
type ServiceCounts struct {
	Releases map[string]Count `json:"releases"`
}

// Count sums up requests.
type Count struct {
	Requests uint64 `json:"requests"`
	// Failed counts requests that the ingress could not serve: no backend,
	// connection failures that no retry cured, timeouts, responses cut short. A 5xx
	// that a backend chose to answer is in Status only.
	Failed   uint64 `json:"failed"`
	Canceled uint64 `json:"canceled"` // the client left first
	Retried  uint64 `json:"retried"`  // attempts beyond the first
	// Status counts responses by class: index 2 is 2xx. Index 0 is requests
	// that ended without a response.
	Status [6]uint64 `json:"status"`
	// Latency runs from a request's arrival to the head of its response.
	Latency Histogram `json:"latency"`
	// First is when the first request was answered below 500; zero if none.
	First time.Time `json:"first,omitzero"`
}

// Merge adds the counts of o.
func (c *Count) Merge(o Count) {
	c.Requests += o.Requests
	c.Failed += o.Failed
	c.Canceled += o.Canceled
	c.Retried += o.Retried
	for i, n := range o.Status {
		c.Status[i] += n
	}
	c.Latency.Merge(o.Latency)
	if c.First.IsZero() || !o.First.IsZero() && o.First.Before(c.First) {
		c.First = o.First
	}
}

// Total sums a service over its releases.
func (s ServiceCounts) Total() Count {
	var t Count
	for _, c := range s.Releases {
		t.Merge(c)
	}
	return t
}

// Merge adds the counts of o, for example of another ingress node.
func (c *Counts) Merge(o Counts) {
	if c.Services == nil {
		c.Services = map[string]ServiceCounts{}
	}
	for name, s := range o.Services {
		have, ok := c.Services[name]
		if !ok {
			have.Releases = map[string]Count{}
		}
		for rel, n := range s.Releases {
			sum := have.Releases[rel]
			sum.Merge(n)
			have.Releases[rel] = sum
		}
		c.Services[name] = have
	}
}

// maxReleases bounds how many services x releases are remembered; the rest is
// counted under release "" of service "".
const maxReleases = 4096

type releaseKey struct{ service, release string }

// ledger holds the live counters of a proxy.
type ledger struct {
	mu   sync.Mutex
	rows map[releaseKey]*releaseCount
}

func (l *ledger) row(service, release string) *releaseCount {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := releaseKey{service, release}
	if l.rows == nil {
		l.rows = map[releaseKey]*releaseCount{}
	}
	if len(l.rows) >= maxReleases && l.rows[k] == nil {
		k = releaseKey{}
	}
	if l.rows[k] == nil {
		l.rows[k] = &releaseCount{}
	}
	return l.rows[k]
}

func (l *ledger) snapshot() Counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := Counts{Services: map[string]ServiceCounts{}}
	for k, r := range l.rows {
		n := r.snapshot()
		if n.Requests == 0 {
			continue
		}
		if out.Services[k.service].Releases == nil {
			out.Services[k.service] = ServiceCounts{Releases: map[string]Count{}}
		}
		out.Services[k.service].Releases[k.release] = n
	}
	return out
}

type releaseCount struct {
	requests, failed, canceled, retried atomic.Uint64
	status                              [6]atomic.Uint64
	latency                             liveHistogram
	first                               atomic.Int64 // Unix nanoseconds
}

func (r *releaseCount) observe(o *outcome, now time.Time) {
	r.requests.Add(1)
	if o.retries > 0 {
		r.retried.Add(uint64(o.retries))
	}
	switch {
	case o.canceled:
		r.canceled.Add(1)
	case o.failed:
		r.failed.Add(1)
	}
	class := o.status / 100
	if class < 0 || class > 5 {
		class = 0
	}
	r.status[class].Add(1)
	if o.headAfter > 0 {
		r.latency[bucketOf(o.headAfter)].Add(1)
	}
	if class > 0 && class < 5 && r.first.Load() == 0 {
		r.first.CompareAndSwap(0, now.UnixNano())
	}
}

func (r *releaseCount) snapshot() Count {
	c := Count{
		Failed: r.failed.Load(), Canceled: r.canceled.Load(), Retried: r.retried.Load(),
		Latency: r.latency.snapshot(),
	}
	for i := range r.status {
		c.Status[i] = r.status[i].Load()
	}
	if ns := r.first.Load(); ns != 0 {
		c.First = time.Unix(0, ns).UTC()
	}
	c.Requests = r.requests.Load()
	return c
}
