package node

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	"appliance/raft/state"
)

// pathHash is where every node serves the hashes of its state: GET pathHash?index=N.
const pathHash = "/rpc/statehash"

const (
	hashesKept = 8 // checkpoints: a slow node may still be asked for an older one
	// hashWait bounds how long a question waits for a hash that is not done: a second for 100,000 tasks, and room
	// for a busy machine.
	hashWait = 20 * time.Second
	maxHash  = 64 << 10 // bytes of an answer
)

// stateHashes hashes the state at every checkpoint of the log, in the background, and keeps the last few. A
// checkpoint that comes while one is hashed and another waits takes the waiting one's place.
type stateHashes struct {
	log *slog.Logger

	mu      sync.Mutex
	next    *state.Snapshot // to be hashed
	kept    []state.Hash    // oldest first
	newest  uint64          // index of the last checkpoint seen
	took    time.Duration   // by the last hash
	changed chan struct{}   // closed and replaced at every change
}

func newStateHashes(log *slog.Logger) *stateHashes {
	return &stateHashes{log: log, changed: make(chan struct{})}
}

// checkpoint takes a view; it is called from within the log.
func (h *stateHashes) checkpoint(view *state.Snapshot) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.next, h.newest = view, view.Index()
	h.wake()
}

func (h *stateHashes) wake() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// Run hashes until ctx ends.
func (h *stateHashes) Run(ctx context.Context) error {
	for {
		h.mu.Lock()
		view, changed := h.next, h.changed
		h.next = nil
		h.mu.Unlock()
		if view == nil {
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
				continue
			}
		}
		began := time.Now()
		hash, err := view.Hash(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			h.log.Error("the state cannot be hashed", "index", view.Index(), "err", err)
			continue
		}
		h.keep(hash, time.Since(began))
	}
}

func (h *stateHashes) keep(hash state.Hash, took time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.kept = append(h.kept, hash)
	h.kept = h.kept[max(0, len(h.kept)-hashesKept):]
	h.took = took
	h.wake()
}

// cost is how long the last hash took.
func (h *stateHashes) cost() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.took
}

// at returns the hash at an index, or waits until there is one or cannot be any more.
func (h *stateHashes) at(ctx context.Context, index uint64) (state.Hash, error) {
	for {
		h.mu.Lock()
		for _, hash := range h.kept {
			if hash.Index == index {
				h.mu.Unlock()
				return hash, nil
			}
		}
		past := len(h.kept) > 0 && h.kept[len(h.kept)-1].Index > index
		changed := h.changed
		h.mu.Unlock()
		if past {
			return state.Hash{}, fmt.Errorf("the state at index %d was not hashed here", index)
		}
		select {
		case <-ctx.Done():
			return state.Hash{}, fmt.Errorf("the state at index %d is not hashed yet: %w", index, context.Cause(ctx))
		case <-changed:
		}
	}
}

// ServeHTTP answers other nodes.
func (h *stateHashes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	index, err := strconv.ParseUint(r.URL.Query().Get("index"), 10, 64)
	if err != nil {
		http.Error(w, "index must be a number", http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), hashWait)
	defer cancel()
	hash, err := h.at(ctx, index)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	_ = json.NewEncoder(w).Encode(hash) // the caller asks at the next checkpoint again
}

// askHash gets the hash of another node's state at an index.
func askHash(ctx context.Context, client *http.Client, addr string, index uint64) (state.Hash, error) {
	var out state.Hash
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("https://%s%s?index=%d", addr, pathHash, index), nil)
	if err != nil {
		return out, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxHash))
	if err != nil {
		return out, err
	}
	if resp.StatusCode != http.StatusOK {
		return out, fmt.Errorf("%s: %s", resp.Status, body)
	}
	return out, json.Unmarshal(body, &out)
}
