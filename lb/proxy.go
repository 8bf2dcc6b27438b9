package lb

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Config of a Proxy. The zero value works.
type Config struct {
	Log *slog.Logger // target state changes; nil is slog.Default
	// Access receives a line per request; nil is none. The caller runs it.
	Access *AccessLog
	// TrustedProxies may state the client's address in X-Forwarded-For; from
	// all others such headers are dropped.
	TrustedProxies []netip.Prefix
}

// A Proxy is an http.Handler that forwards to the backends of its table.
type Proxy struct {
	cfg    Config
	log    *slog.Logger
	ledger ledger
	h2     *http.Transport
	live   atomic.Pointer[snapshot]

	mu      sync.Mutex // serializes Swap
	targets map[targetKey]*target
	rounds  map[string]*atomic.Uint64 // per service
}

type targetKey struct{ id, addr string }

// snapshot is one table with its targets.
type snapshot struct {
	table *Table
	pools map[string]*pool
}

// New makes a proxy with an empty table.
func New(cfg Config) *Proxy {
	p := &Proxy{cfg: cfg, log: cfg.Log, targets: map[targetKey]*target{}, rounds: map[string]*atomic.Uint64{}}
	if p.log == nil {
		p.log = slog.Default()
	}
	p.h2 = newH2C()
	empty, _ := NewTable(nil, nil) // nothing in it can be wrong
	p.Swap(empty)
	return p
}

// Swap puts a table in force. When it returns, no request starts on a backend
// that the table lacks or drains; those in flight go on, and InFlight tells when
// they have ended.
func (p *Proxy) Swap(t *Table) {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := &snapshot{table: t, pools: make(map[string]*pool, len(t.services))}
	seen := make(map[targetKey]bool, len(p.targets))
	var closing []*target
	for _, s := range t.services {
		pl := &pool{service: s, next: p.round(s.Name), none: p.ledger.row(s.Name, "")}
		for _, b := range s.Backends {
			k := targetKey{b.ID, b.Addr}
			seen[k] = true
			tg := p.target(k, s.Name, b)
			if b.Draining {
				closing = append(closing, tg)
				continue
			}
			tg.closed.Store(false)
			pl.targets = append(pl.targets, tg)
			pl.weights = append(pl.weights, b.Weight)
		}
		if len(pl.weights) > 0 {
			pl.schedule = schedule(pl.weights)
		}
		next.pools[s.Name] = pl
	}
	p.live.Store(next)
	// Only now may targets refuse: a request that finds its target closed looks
	// at the live table again, and must find this one.
	for _, tg := range closing {
		tg.closed.Store(true)
		tg.reap(false)
	}
	for k, tg := range p.targets {
		if !seen[k] {
			tg.closed.Store(true)
			tg.reap(true)
			if tg.inflight.Load() == 0 {
				delete(p.targets, k)
			}
		}
	}
	for name := range p.rounds {
		if _, ok := t.services[name]; !ok {
			delete(p.rounds, name)
		}
	}
}

func (p *Proxy) round(service string) *atomic.Uint64 {
	if p.rounds[service] == nil {
		p.rounds[service] = new(atomic.Uint64)
	}
	return p.rounds[service]
}

func (p *Proxy) target(k targetKey, service string, b Backend) *target {
	tg := p.targets[k]
	if tg == nil || tg.service != service || tg.release != b.Release {
		if tg != nil {
			tg.reap(true)
		}
		tg = &target{id: b.ID, addr: b.Addr, service: service, release: b.Release, count: p.ledger.row(service, b.Release)}
		p.targets[k] = tg
	}
	tg.keep()
	return tg
}

// Table returns the table in force.
func (p *Proxy) Table() *Table { return p.live.Load().table }

// Counts returns what happened since New.
func (p *Proxy) Counts() Counts { return p.ledger.snapshot() }

// A TargetStatus is a backend as this proxy sees it.
type TargetStatus struct {
	ID       string    `json:"id"`
	Addr     string    `json:"addr"`
	Service  string    `json:"service"`
	Release  string    `json:"release"`
	InFlight int64     `json:"inFlight"`
	Closed   bool      `json:"closed,omitempty"` // draining or gone from the table
	Ejected  time.Time `json:"ejected,omitzero"` // until when it is passed over
}

// Targets lists the backends of the table, and those that left it with
// requests in flight.
func (p *Proxy) Targets() []TargetStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]TargetStatus, 0, len(p.targets))
	for _, t := range p.targets {
		s := TargetStatus{ID: t.id, Addr: t.addr, Service: t.service, Release: t.release, InFlight: t.inflight.Load(), Closed: t.closed.Load()}
		if u := t.until.Load(); u != 0 {
			s.Ejected = time.Unix(0, u).UTC()
		}
		out = append(out, s)
	}
	return out
}

// InFlight counts the requests that a task is serving through this proxy. After
// a Swap that drains the task, zero means that it may be stopped.
func (p *Proxy) InFlight(id string) (n int64) {
	for _, t := range p.Targets() {
		if t.ID == id {
			n += t.InFlight
		}
	}
	return n
}

// reapEvery is how often idle connections are looked at.
const reapEvery = time.Second

// Run closes idle upstream connections as they age, and all of them when ctx
// ends.
func (p *Proxy) Run(ctx context.Context) error {
	tick := time.NewTicker(reapEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			p.reap(false)
		case <-ctx.Done():
			p.reap(true)
			return nil
		}
	}
}

func (p *Proxy) reap(all bool) {
	if all {
		p.h2.CloseIdleConnections()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	listed := p.live.Load()
	for k, t := range p.targets {
		t.reap(all)
		if t.closed.Load() && t.inflight.Load() == 0 && !listed.has(k) {
			delete(p.targets, k)
		}
	}
}

func (s *snapshot) has(k targetKey) bool {
	for _, svc := range s.table.services {
		for _, b := range svc.Backends {
			if b.ID == k.id && b.Addr == k.addr {
				return true
			}
		}
	}
	return false
}

// ServeHTTP forwards one request.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := exchange{p: p, w: w, r: r, start: time.Now()}
	defer x.finish() // also when the handler is aborted
	x.serve()
}

func random(n int) int { return rand.IntN(n) }
