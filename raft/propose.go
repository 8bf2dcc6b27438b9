package raft

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"reflect"
	"time"

	hraft "github.com/hashicorp/raft"
)

// errRetry wraps the causes that another attempt may cure. If unsure is set, the attempt may have put
// the proposal into the log.
type errRetry struct {
	cause  error
	unsure bool
}

func (e errRetry) Error() string { return e.cause.Error() }
func (e errRetry) Unwrap() error { return e.cause }

// Propose commits data and applies it, whoever leads, and returns the index and the result of the state
// machine. It tries until ctx ends (at most 30 s without a deadline) or nobody has led for 5 s, through
// changes of leadership: the state machine sees the proposal once. It returns when the entry is applied on this node too, unless
// this node is more than a second behind.
//
// Errors are about the log only: ErrNoLeader (nothing was changed), ErrUnknownOutcome, ErrTooLarge,
// ErrDenied, ErrDisk, ErrClosed, ErrHalted.
func (n *Node) Propose(ctx context.Context, data []byte) (uint64, any, error) {
	return propose(ctx, n.replica, data, n.knowsLeader, func(ctx context.Context, env envelope) (Outcome, error) {
		return n.attempt(ctx, env, true)
	})
}

// attempt tries once: here if this node leads, else, if allowed, at the leader.
func (n *Node) attempt(ctx context.Context, env envelope, forward bool) (Outcome, error) {
	if n.IsLeader() {
		return n.applyHere(ctx, env)
	}
	id, addr := n.Leader()
	if !forward || addr == "" || id == n.conf.ID {
		return Outcome{}, errRetry{cause: n.noLeader()}
	}
	return n.rpc.propose(ctx, addr, env, codecOf(n.replica.sm))
}

// applyHere appends to the own log.
func (n *Node) applyHere(ctx context.Context, env envelope) (Outcome, error) {
	if err := n.pending.enter(ctx, env); err != nil {
		return Outcome{}, errRetry{cause: err}
	}
	if n.ctx.Err() != nil { // after entering: see drain
		n.pending.leave(env)
		return Outcome{}, errRetry{cause: ErrClosed}
	}
	p := &proposal{env: env, done: make(chan error, 1)}
	n.proposals.add(p)
	select {
	case err := <-p.done:
		if err != nil {
			return Outcome{}, n.classify(err)
		}
	case <-ctx.Done():
		dropped := n.proposals.drop(p)
		if dropped {
			n.pending.leave(env)
		}
		return Outcome{}, errRetry{cause: ctx.Err(), unsure: !dropped}
	}
	n.transferSince.Store(0)
	return p.outcome, p.outcome.Err
}

// proposal waits for its place in the log of this node. It is pending until it has an
// outcome or is dropped, also when nobody waits for it any more: raft holds it.
type proposal struct {
	env     envelope
	outcome Outcome    // set before done tells of no error
	done    chan error // buffered
}

const (
	// appendHold is how long a proposal waits for the end of those before it. They take a few milliseconds,
	// unless a disk or the way to the others is slow.
	appendHold = 20 * time.Millisecond
	// appendRounds bounds what is on such a way at a time.
	appendRounds = 16
	// enqueueWait is how long raft may be too busy to take a round.
	enqueueWait = time.Second
)

// append puts a round of proposals into the log and waits for what became of them, at the latest until
// leadership is lost.
func (n *Node) append(round []*proposal) {
	futures := make([]hraft.ApplyFuture, len(round))
	end := time.Now().Add(enqueueWait)
	for i, p := range round {
		futures[i] = n.raft.Apply(p.env, max(time.Until(end), time.Microsecond))
		endWith(futures[i], n.closed)
	}
	for i, p := range round {
		err := futures[i].Error()
		if err == nil {
			p.outcome = futures[i].Response().(Outcome)
		}
		p.done <- err
		n.pending.leave(p.env)
	}
}

// endWith has a future answer ErrRaftShutdown when over is closed. hashicorp/raft never answers proposals that
// it had not looked at when it stopped, though its futures can be told of the end: by a field that it sets for
// other kinds of requests only.
func endWith(f hraft.ApplyFuture, over chan struct{}) {
	if field := reflect.Indirect(reflect.ValueOf(f)).FieldByName("ShutdownCh"); field.IsValid() && field.CanSet() {
		field.Set(reflect.ValueOf(over))
	}
}

// drain waits, before raft stops, for what is in flight, so that who proposed learns what became of it. A
// leader alone loses its lease soon, so only a hung disk takes longer.
func (n *Node) drain() {
	for end := time.Now().Add(3 * electionTimeout); n.pending.len() > 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
}

// classify says whether a failed append may be tried again.
func (n *Node) classify(err error) error {
	switch {
	case errors.Is(err, hraft.ErrLeadershipTransferInProgress):
		n.watchTransfer()
		return errRetry{cause: err}
	case errors.Is(err, hraft.ErrNotLeader), errors.Is(err, hraft.ErrEnqueueTimeout):
		return errRetry{cause: err}
	case errors.Is(err, hraft.ErrRaftShutdown):
		// What was in flight may still be committed by the others.
		return errRetry{cause: ErrClosed, unsure: true}
	}
	if de := n.disk.watch.trouble(); de != nil { // raft's log cache keeps only the text of it
		if servers, _ := n.Servers(); len(servers) == 1 {
			return fmt.Errorf("%w: %w", ErrUnknownOutcome, de) // nobody else can take over
		}
		err = de
	}
	return errRetry{cause: err, unsure: true} // leadership lost, aborted by restore, disk
}

// noLeader is ErrNoLeader with the cause, if it is this node's disk.
func (n *Node) noLeader() error {
	if de := n.disk.watch.trouble(); de != nil {
		return fmt.Errorf("%w: %w", ErrNoLeader, de)
	}
	return ErrNoLeader
}

// watchTransfer ends the node if a leadership transfer blocks it for longer than one can take.
func (n *Node) watchTransfer() {
	now := time.Now().UnixNano()
	if n.transferSince.CompareAndSwap(0, now) {
		return
	}
	since := time.Duration(now - n.transferSince.Load())
	if since > 4*electionTimeout && n.IsLeader() {
		n.fail(fmt.Errorf("%w for %v: restart this process", ErrWedged, since.Round(time.Millisecond)))
	}
}

// propose runs attempts until one succeeds. It is common to masters and agents.
func propose(ctx context.Context, r *Replica, data []byte, led func() bool, attempt func(context.Context, envelope) (Outcome, error)) (uint64, any, error) {
	if len(data) > MaxPayload {
		return 0, nil, fmt.Errorf("%w: it has %d bytes, the log takes %d: split it", ErrTooLarge, len(data), MaxPayload)
	}
	var id ProposalID
	rand.Read(id[:]) // never fails
	ctx, cancel := limit(ctx)
	defer cancel()
	env := newEnvelope(id, r.Applied(), 0, data)
	o, err := retry(ctx, r, env, led, attempt)
	if err != nil {
		return 0, nil, err
	}
	o = settle(ctx, r, id, o)
	return o.Index, o.Value, o.Err
}

func limit(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, defaultWait)
}

func retry(ctx context.Context, r *Replica, env envelope, led func() bool, attempt func(context.Context, envelope) (Outcome, error)) (Outcome, error) {
	unsure, wait := false, leaderless{led: led}
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		o, err := attempt(ctx, env)
		var again errRetry
		if err == nil || !errors.As(err, &again) {
			return o, err
		}
		unsure = unsure || again.unsure
		sleep(ctx, pause/2+mrand.N(pause))
		if o, ok := r.Lookup(env.id()); ok {
			return o, nil
		}
		if ctx.Err() != nil || errors.Is(err, ErrClosed) || wait.over() {
			return Outcome{}, giveUp(again.cause, unsure)
		}
		if unsure && !env.retry() {
			env = env.asRetry()
		}
	}
}

// leaderless tells a call that needs a leader when to give up.
type leaderless struct {
	led   func() bool // whether somebody is known to lead
	since time.Time   // the first look that found nobody; zero if the last one found somebody
}

// over reports whether nobody has led for too long. An attempt at a leader that hangs is no such time.
func (p *leaderless) over() bool {
	switch {
	case p.led():
		p.since = time.Time{}
		return false
	case p.since.IsZero():
		p.since = time.Now()
	}
	return time.Since(p.since) >= leaderWait
}

func (n *Node) knowsLeader() bool {
	_, addr := n.Leader()
	return addr != ""
}

func giveUp(cause error, unsure bool) error {
	if errors.Is(cause, ErrClosed) && !unsure {
		return cause
	}
	if unsure {
		return fmt.Errorf("%w: no confirmation in time (%w): it may still take effect; read the current state before trying again", ErrUnknownOutcome, cause)
	}
	if cause == ErrNoLeader {
		return fmt.Errorf("%w that answers: nothing was changed: check that a majority of the masters runs and reaches each other", ErrNoLeader)
	}
	return fmt.Errorf("%w that answers: nothing was changed (%w): check that a majority of the masters runs and reaches each other", ErrNoLeader, cause)
}

// settle waits until the entry is applied here, so that the caller reads its own write, and prefers the
// result of the own state machine, which needed no codec.
func settle(ctx context.Context, r *Replica, id ProposalID, o Outcome) Outcome {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if r.WaitApplied(ctx, o.Index) == nil {
		own, ok := r.Lookup(id)
		if long, is := own.Value.(Longish); ok && !(is && long.Gone()) {
			return own
		}
	}
	return o
}
