package raft

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	hraft "github.com/hashicorp/raft"
)

const (
	// patience is how long a node that should not lead lets others stand for election before it does itself.
	patience = 3 * time.Second
	// yieldWait bounds the question to the others.
	yieldWait = time.Second
	// electWait is how long one of them has to be elected, and electTries how many are asked.
	electWait  = 700 * time.Millisecond
	electTries = 3
	// firstPause and longestPause part the attempts to hand leadership over: moves are rare.
	firstPause   = time.Second
	longestPause = 30 * time.Second
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

// yield hands leadership over while this node should not lead, and judges the disk.
func (n *Node) yield(ctx context.Context) {
	var slow, next, leaderless time.Time
	pause := firstPause
	for ctx.Err() == nil {
		sleep(ctx, watchEvery)
		now := time.Now()
		n.judgeDisk(now, &slow)
		if _, addr := n.Leader(); addr != "" {
			leaderless = time.Time{}
		} else if leaderless.IsZero() {
			leaderless = now
		}
		reasons := n.fitness.list()
		n.trans.silent.Store(len(reasons) > 0 && (leaderless.IsZero() || now.Sub(leaderless) < patience))
		switch {
		case len(reasons) == 0:
			pause, next = firstPause, now
		case n.IsLeader() && !now.Before(next):
			n.yieldOnce(ctx, strings.Join(reasons, ", "))
			pause, next = min(2*pause, longestPause), time.Now().Add(pause)
		}
	}
}

// yieldOnce asks the others to lead, one after the other: the first may have fallen behind before it stood for
// election, and without a leader all would then wait for a timeout.
func (n *Node) yieldOnce(ctx context.Context, why string) {
	var err error
	for range electTries {
		var to Server
		if to, err = n.successor(ctx); err == nil {
			err = n.callElection(ctx, to)
		}
		if errors.Is(err, errDeposed) {
			return
		}
		if err == nil {
			n.log.Info("leadership handed over", "to", to.ID, "why", why)
			return
		}
		sleep(ctx, watchEvery)
	}
	n.log.Warn("this node should not lead and found nobody who can", "why", why, "err", err)
}

// errDeposed says that another node leads already.
var errDeposed = errors.New("another node leads")

// Successor finds the voter that is fit to lead in this node's place and has most of the log. It asks
// all of them, for at most a second.
func (n *Node) Successor(ctx context.Context) (Server, error) { return n.successor(ctx) }

func (n *Node) successor(ctx context.Context) (Server, error) {
	servers, err := n.Servers()
	if err != nil {
		return Server{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, yieldWait)
	defer cancel()
	term, last := n.raft.CurrentTerm(), n.raft.LastIndex()
	answers := make([]statusReply, len(servers))
	var wg sync.WaitGroup
	for i, s := range servers {
		if s.Voter && s.ID != n.conf.ID {
			wg.Go(func() { answers[i], _ = n.rpc.status(ctx, n.locate(s.ID, s.Addr)) }) // silence is an answer
		}
	}
	wg.Wait()
	best := -1
	for i, st := range answers {
		if st.Term >= term && st.State == hraft.Leader.String() { // in our own, too: who was deposed has taken on the term
			return Server{}, errDeposed
		}
		fit := st.ID == servers[i].ID && st.State == hraft.Follower.String() && len(st.Unfit) == 0 && st.Last+catchUpSlack >= last
		if fit && (best < 0 || st.Last > answers[best].Last) {
			best = i
		}
	}
	if best < 0 {
		return Server{}, errors.New("no other voter answers, is well and has the whole log")
	}
	return servers[best], nil
}

// callElection asks a voter to stand for election now. Unlike a transfer of leadership it does not need
// this node's raft, which may hang in a write, and cannot leave it wedged (hashicorp/raft issue 696); the
// price is that changes under way are tried again at the new leader.
func (n *Node) callElection(ctx context.Context, to Server) error {
	req := &hraft.TimeoutNowRequest{RPCHeader: hraft.RPCHeader{
		ProtocolVersion: hraft.ProtocolVersionMax, ID: []byte(n.conf.ID), Addr: []byte(n.conf.Addr)}}
	var resp hraft.TimeoutNowResponse
	ctx, cancel := context.WithTimeout(ctx, electWait)
	defer cancel()
	if err := n.trans.TimeoutNow(hraft.ServerID(to.ID), hraft.ServerAddress(to.Addr), req, &resp); err != nil {
		return err
	}
	for ctx.Err() == nil {
		if st, err := n.rpc.status(ctx, n.locate(to.ID, to.Addr)); err == nil && st.State == hraft.Leader.String() {
			return nil
		}
		if id, addr := n.Leader(); addr != "" && id != n.conf.ID {
			return nil
		}
		sleep(ctx, 20*time.Millisecond)
	}
	return fmt.Errorf("%s was asked to lead and does not", to.ID)
}
