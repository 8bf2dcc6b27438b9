package node

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"appliance/lb"
	"appliance/node/model"
	"appliance/raft/state"
)

// pathCounts is where every node serves its proxy's counters to the leader.
const pathCounts = "/rpc/ingress/counts"

const (
	// countsTimeout bounds the question to one node: a deployment does not
	// wait for the counters of a dead one.
	countsTimeout = 500 * time.Millisecond
	maxCounts     = 8 << 20
)

func serveCounts(p *lb.Proxy) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(p.Counts()) // the leader asks again
	}
}

// receipts measures deployments by the counters of all proxies, as the
// difference between their begin and their end.
type receipts struct {
	store  *state.Store
	client *http.Client
	self   string
	local  *lb.Proxy
	alive  func(node string) bool
	log    *slog.Logger

	mu    sync.Mutex
	begun map[string]lb.Counts
}

// Begin implements sched.Receipts. The first call for a deployment counts: the
// scheduler asks again if the end of one was not accepted.
func (r *receipts) Begin(d *model.Deployment) {
	r.mu.Lock()
	_, again := r.begun[d.ID]
	r.mu.Unlock()
	if again {
		return
	}
	counts := r.collect()
	snap := r.store.Snapshot()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.begun == nil {
		r.begun = map[string]lb.Counts{}
	}
	for id := range r.begun {
		if old := state.Deployments.Get(snap, id); old == nil || old.State != model.DeploymentRunning {
			delete(r.begun, id)
		}
	}
	r.begun[d.ID] = counts
}

// Finish implements sched.Receipts. Who comes before an app's first release
// is ready is turned away; that is not the failure of its deployment.
func (r *receipts) Finish(d *model.Deployment) *model.Receipt {
	now := r.collect()
	r.mu.Lock()
	before := r.begun[d.ID]
	r.mu.Unlock()
	var total lb.Count
	var first time.Time
	for name, s := range now.Services {
		if app, _, _ := strings.Cut(name, "#"); app != d.App {
			continue
		}
		for release, c := range s.Releases {
			if release == "" && d.From == 0 {
				continue
			}
			prior := before.Services[name].Releases[release]
			if c.First.After(d.StartedAt) {
				prior = lb.Count{} // all of it is newer, also if this leader began to watch later
			}
			total.Merge(since(c, prior))
			if release == strconv.FormatUint(d.To, 10) && !c.First.IsZero() && c.First.After(d.StartedAt) && (first.IsZero() || c.First.Before(first)) {
				first = c.First
			}
		}
	}
	out := &model.Receipt{Requests: total.Requests, Failed: total.Failed,
		P50: model.Duration(total.Latency.Quantile(0.5)), P99: model.Duration(total.Latency.Quantile(0.99))}
	if !first.IsZero() {
		out.FirstTraffic = model.Duration(first.Sub(d.StartedAt))
	}
	return out
}

// since is what was counted after before. A proxy that restarted meanwhile
// counts from zero again; its sum may then be smaller, and is taken as it is.
func since(c, before lb.Count) lb.Count {
	if c.Requests < before.Requests {
		return c
	}
	c.Requests -= before.Requests
	c.Failed -= min(c.Failed, before.Failed)
	buckets := map[int]uint64{}
	for i, n := range c.Latency.Buckets {
		buckets[i] = n - min(n, before.Latency.Buckets[i])
	}
	c.Latency = lb.Histogram{Buckets: buckets}
	return c
}

// collect sums the counters of all nodes that answer in time.
func (r *receipts) collect() lb.Counts {
	var total lb.Counts
	total.Merge(r.local.Counts())
	var mu sync.Mutex
	var wg sync.WaitGroup
	for n := range state.Nodes.All(r.store.Snapshot()) {
		if n.ID == r.self || !n.Ingress || n.Status != model.NodeReady || !r.alive(n.ID) {
			continue
		}
		wg.Go(func() {
			c, err := r.ask(n)
			if err != nil {
				r.log.Debug("counters of a proxy are missing in a receipt", "node", n.Name, "err", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			total.Merge(c)
		})
	}
	wg.Wait()
	return total
}

func (r *receipts) ask(n *model.Node) (lb.Counts, error) {
	var c lb.Counts
	ctx, cancel := context.WithTimeout(context.Background(), countsTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+withPort(n.Addr)+pathCounts, nil)
	if err != nil {
		return c, err
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return c, err
	}
	defer resp.Body.Close()
	return c, json.NewDecoder(io.LimitReader(resp.Body, maxCounts)).Decode(&c)
}
