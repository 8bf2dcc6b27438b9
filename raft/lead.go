package raft

import (
	"context"
	"errors"
	"sync"
	"time"

	hraft "github.com/hashicorp/raft"
)

// lead turns raft's leadership changes into contexts for the hooks.
//
// raft blocks until its notification is taken, so a goroutine does nothing but take them; the hooks run
// elsewhere and may be slow. Each gain counts: if leadership is lost and won again in between, the hooks
// are stopped and started, never carried over.
type lead struct {
	node   *Node
	notify chan bool
	done   chan struct{}
	wg     sync.WaitGroup

	mu     sync.Mutex
	epoch  uint64 // number of notifications
	leader bool   // as of the last one
	change chan struct{}
	hooks  []func(context.Context)
}

func newLead(n *Node) *lead {
	l := &lead{node: n, notify: make(chan bool, 1), done: make(chan struct{}), change: make(chan struct{})}
	l.wg.Go(l.drain)
	return l
}

func (l *lead) close() {
	close(l.done)
	l.wg.Wait()
}

func (l *lead) drain() {
	for {
		select {
		case v := <-l.notify:
			l.mu.Lock()
			l.epoch++
			l.leader = v
			close(l.change)
			l.change = make(chan struct{})
			l.mu.Unlock()
			if !v {
				l.node.trans.closePipelines()
			}
		case <-l.done:
			return
		}
	}
}

func (l *lead) state() (epoch uint64, leader bool, change <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.epoch, l.leader, l.change
}

// OnLeadership registers fn to run while this node leads. fn starts when everything committed before is
// applied here; its context ends when leadership is lost, and it must return soon after. A hook that
// returns early is not started again in the same term. Register before Run.
func (n *Node) OnLeadership(fn func(ctx context.Context)) {
	n.lead.mu.Lock()
	defer n.lead.mu.Unlock()
	n.lead.hooks = append(n.lead.hooks, fn)
}

// run follows leadership until ctx ends.
func (l *lead) run(ctx context.Context) {
	for ctx.Err() == nil {
		epoch, leader, change := l.state()
		if !leader {
			select {
			case <-change:
			case <-ctx.Done():
			}
			continue
		}
		l.term(ctx, epoch, change)
	}
}

// term lives through one leadership and returns when it is over and all hooks have returned.
func (l *lead) term(ctx context.Context, epoch uint64, change <-chan struct{}) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-change:
		case <-ctx.Done():
		}
		cancel()
	})
	if l.establish(ctx) {
		l.node.log.Info("this node leads the cluster", "term", l.node.raft.CurrentTerm())
		l.mu.Lock()
		hooks := l.hooks
		l.mu.Unlock()
		for _, fn := range hooks {
			wg.Go(func() { fn(ctx) })
		}
		<-ctx.Done()
		l.node.log.Info("this node no longer leads the cluster", "epoch", epoch)
	}
	cancel()
	wg.Wait()
}

// establish commits a marker in the new term. Once it is applied, everything that earlier leaders
// acknowledged is applied too, and reads are safe (Raft thesis, section 6.4).
func (l *lead) establish(ctx context.Context) bool {
	marker := newEnvelope(ProposalID{}, 0, flagMarker, nil)
	for ctx.Err() == nil {
		_, err := l.node.applyHere(ctx, marker)
		if err == nil {
			return true
		}
		if errors.Is(err, ErrClosed) || errors.Is(err, ErrHalted) {
			return false
		}
		sleep(ctx, 10*time.Millisecond)
	}
	return false
}

// wait returns the error of a future, or that of ctx if it ends first. The future ends at the latest
// when leadership is lost or the node stops.
func wait(ctx context.Context, f hraft.Future) error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
