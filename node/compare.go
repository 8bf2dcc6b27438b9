package node

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"appliance/node/api"
	"appliance/node/doctor"
	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
)

const (
	// compareEvery is how often the leader has all replicas compared, if anything has changed.
	compareEvery = time.Minute
	// compareShare spaces comparisons out where the state is large: hashing takes at most one part in so many.
	compareShare = 100
	// compareSlots is how many nodes are asked at a time.
	compareSlots = 8
)

// comparer has the replicas of the state compared at equal index.
type comparer struct {
	self     string // node id
	store    *state.Store
	proposer command.Proposer
	hashes   *stateHashes
	client   *http.Client
	log      *slog.Logger
}

// openHashes mounts the answers, and has the leader compare.
func (n *Node) openHashes(context.Context) error {
	n.rpc.Handle("GET "+pathHash, n.hashes)
	n.part("state hashes", n.hashes.Run)
	n.comparer = &comparer{self: n.cfg.ID, store: n.store, proposer: n.proposer, hashes: n.hashes, client: n.dialer.Client(), log: n.log}
	if n.voter != nil {
		n.voter.OnLeadership(n.comparer.lead)
	}
	return nil
}

// lead compares now and then while this node leads.
func (c *comparer) lead(ctx context.Context) {
	last := uint64(0)
	for ctx.Err() == nil {
		pause(ctx, max(compareEvery, compareShare*c.hashes.cost()))
		if ctx.Err() != nil || c.store.Index() == last || command.ClusterLevel(c.store.Snapshot()) < command.Level(&command.Checkpoint{}) {
			continue
		}
		if _, err := c.compare(ctx); err != nil && ctx.Err() == nil {
			c.log.Warn("the states of the nodes could not be compared, trying again", "err", err)
		}
		last = c.store.Index()
	}
}

// compare hashes the state on every node at one index and notes who differs in the log.
func (c *comparer) compare(ctx context.Context) (api.StateCheck, error) {
	known := diverged(c.store.Snapshot())
	res, err := command.Do(ctx, c.proposer, &command.Checkpoint{At: time.Now().UTC(), Diverged: known})
	if err != nil {
		return api.StateCheck{}, err
	}
	out := api.StateCheck{Index: res.Index}
	snap := c.store.Snapshot()
	hashes, err := c.collect(ctx, snap, res.Index)
	if err != nil {
		return out, err
	}
	out.Nodes, out.Diverged = len(hashes), judge(snap, c.self, hashes, known)
	for _, d := range out.Diverged {
		c.log.Error("this node's state differs from that of the other masters, which have applied the same log", "node", d.Name, "index", res.Index, "tables", d.Tables)
	}
	if reflect.DeepEqual(out.Diverged, known) || len(out.Diverged)+len(known) == 0 {
		return out, nil
	}
	_, err = command.Do(ctx, c.proposer, &command.Checkpoint{At: time.Now().UTC(), Diverged: out.Diverged})
	return out, err
}

func diverged(s *state.Snapshot) []model.Divergence {
	for c := range state.Clusters.All(s) {
		return c.Diverged
	}
	return nil
}

// collect asks all nodes that are ready for their hash at index. Those that do not answer are left out.
func (c *comparer) collect(ctx context.Context, snap *state.Snapshot, index uint64) (map[string]state.Hash, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*hashWait)
	defer cancel()
	own, err := c.hashes.at(ctx, index)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	out := map[string]state.Hash{c.self: own}
	var wg sync.WaitGroup
	slots := make(chan struct{}, compareSlots)
	for n := range state.Nodes.All(snap) {
		if n.ID == c.self || n.Status != model.NodeReady {
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			hash, err := askHash(ctx, c.client, withPort(n.Addr), index)
			if err != nil {
				c.log.Debug("a node has not told its state's hash", "node", n.Name, "err", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			out[n.ID] = hash
		})
	}
	wg.Wait()
	return out, nil
}

// judge says which nodes differ from what most masters have; if no state has a majority among them, from self.
// What was known before keeps the index at which it was found.
func judge(snap *state.Snapshot, self string, hashes map[string]state.Hash, known []model.Divergence) []model.Divergence {
	votes := map[string]int{}
	masters := 0
	for id, h := range hashes {
		if n := state.Nodes.Get(snap, id); n != nil && n.Role == model.RoleMaster && h.Comparable(hashes[self]) {
			votes[h.Sum]++
			masters++
		}
	}
	right := hashes[self]
	for _, h := range hashes {
		if 2*votes[h.Sum] > masters && h.Comparable(right) {
			right = h
			break
		}
	}
	var out []model.Divergence
	for id, h := range hashes {
		n := state.Nodes.Get(snap, id)
		if n == nil || !h.Comparable(right) || h.Sum == right.Sum {
			continue
		}
		d := model.Divergence{Node: id, Name: n.Name, Tables: h.Differences(right), Index: h.Index}
		for _, before := range known {
			if before.Node == id {
				d.Index = before.Index
			}
		}
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b model.Divergence) int { return cmp.Compare(a.Node, b.Node) })
	return out
}

// Check implements api.Upgrader.
func (u upgrade) Check(ctx context.Context) (api.StateCheck, error) { return u.n.comparer.compare(ctx) }

// divergenceFindings are what the last comparison has found.
func divergenceFindings(snap *state.Snapshot) []doctor.Finding {
	var out []doctor.Finding
	for _, d := range diverged(snap) {
		out = append(out, doctor.Finding{Code: doctor.Diverged, Severity: doctor.Error, Node: d.Name, What: "its state differs from that of the other masters",
			Why: fmt.Sprintf("it has applied the same log and has other rows in: %s (found at index %d)", strings.Join(d.Tables, ", "), d.Index),
			Fix: "do not trust what it says; have it take the state anew from the others: appliance recover --resync on it, and report this fault"})
	}
	return out
}
