package wire

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// Generation counts the recoveries of a cluster that had lost its quorum, from 1 on. Masters of different
// generations have different logs and must never take part in one: they do not speak raft with each
// other, and tell each other by a header of every call.
type Generation struct {
	Number uint64 `json:"generation"`
	// Proof is the cluster's signature: no agent can make a master believe in a later generation.
	Proof []byte `json:"proof,omitempty"`
}

const headerGeneration = "Appliance-Generation"

// ErrOldGeneration says that a master belongs to a generation that was given up.
var ErrOldGeneration = errors.New("the master is of a generation that the cluster has left behind")

// RaftProtocol is the ALPN protocol of raft within a generation.
func RaftProtocol(generation uint64) string {
	if generation <= 1 {
		return Raft
	}
	return Raft + "/" + strconv.FormatUint(generation, 10)
}

// String is the form in the header: number, proof.
func (g Generation) String() string {
	return strconv.FormatUint(max(1, g.Number), 10) + " " + base64.StdEncoding.EncodeToString(g.Proof)
}

// parseGeneration reads what String wrote; an empty text is the first generation.
func parseGeneration(s string) (Generation, error) {
	if s == "" {
		return Generation{Number: 1}, nil
	}
	num, proof, _ := strings.Cut(s, " ")
	n, err := strconv.ParseUint(num, 10, 64)
	if err != nil || n == 0 || len(s) > 512 {
		return Generation{}, fmt.Errorf("generation %.20q cannot be read", s)
	}
	raw, err := base64.StdEncoding.DecodeString(proof)
	return Generation{n, raw}, err
}

// Fence adds this node's generation to its calls and answers, and listens to those of others. Safe for
// concurrent use.
type Fence struct {
	own     func() Generation
	genuine func(Generation) bool

	mu      sync.Mutex
	heard   Generation
	changed chan struct{}
}

// NewFence returns a fence of a node whose generation is own; genuine checks the proof of others.
func NewFence(own func() Generation, genuine func(Generation) bool) *Fence {
	return &Fence{own: own, genuine: genuine, changed: make(chan struct{})}
}

// Heard returns the highest genuine generation that another node showed, and a channel that is closed
// when it rises.
func (f *Fence) Heard() (Generation, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.heard, f.changed
}

func (f *Fence) hear(text string) Generation {
	g, err := parseGeneration(text)
	if err != nil {
		return Generation{Number: 1}
	}
	f.mu.Lock()
	known := g.Number <= max(1, f.heard.Number)
	f.mu.Unlock()
	if known || g.Number <= f.own().Number || !f.genuine(g) {
		return g
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if g.Number > f.heard.Number {
		f.heard = g
		close(f.changed)
		f.changed = make(chan struct{})
	}
	return g
}

// Handler shows this node's generation with every answer.
func (f *Fence) Handler(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if text := r.Header.Get(headerGeneration); text != "" {
			f.hear(text)
		}
		if own := f.own(); own.Number > 1 {
			w.Header().Set(headerGeneration, own.String())
		}
		h.ServeHTTP(w, r)
	})
}

// Fence makes the clients of the dialer show this node's generation and refuse answers about the log
// from an older one. Call it before the first use.
func (d *Dialer) Fence(f *Fence) {
	d.rpc.Transport = fenced{d.rpc.Transport, f}
	d.bulk.Transport = fenced{d.bulk.Transport, f}
}

type fenced struct {
	http.RoundTripper
	fence *Fence
}

// RoundTrip implements http.RoundTripper.
func (t fenced) RoundTrip(r *http.Request) (*http.Response, error) {
	own := t.fence.own()
	if own.Number > 1 {
		r = r.Clone(r.Context())
		r.Header.Set(headerGeneration, own.String())
	}
	resp, err := t.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	got := t.fence.hear(resp.Header.Get(headerGeneration))
	if own := t.fence.own(); got.Number < own.Number && aboutLog(r.URL.Path) {
		resp.Body.Close()
		return nil, fmt.Errorf("%s: %w: %d, now is %d", r.URL.Host, ErrOldGeneration, got.Number, own.Number)
	}
	return resp, nil
}

// aboutLog tells the calls whose answers must come from the present log. Others may go to nodes that do
// not know of generations, or not yet of this one.
func aboutLog(path string) bool {
	return strings.HasPrefix(path, "/rpc/raft/") || strings.HasPrefix(path, "/rpc/feed")
}

// CloseIdleConnections lets http.Client.CloseIdleConnections through.
func (t fenced) CloseIdleConnections() {
	if c, ok := t.RoundTripper.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}
