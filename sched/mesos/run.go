package mesos

import (
	"context"
	"time"

	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
	"appliance/sched"
	"appliance/sched/mesos/wire"
)

const (
	// settle lets changes that come together be answered together.
	settle = 5 * time.Millisecond
	// comeBack is what schedulers get after a change of leader to subscribe
	// again, whatever their failover timeout: they cannot have known.
	comeBack = 15 * time.Second
)

// Run makes offers, sends updates and removes frameworks whose failover
// timeout has passed. The caller starts it when this master becomes the
// leader and ends ctx when it no longer is; then all streams are closed, and
// their schedulers find the new leader. It returns the error of ctx.
func (s *Server) Run(ctx context.Context) error {
	s.init()
	s.lead(true)
	defer s.lead(false)
	term := time.Now()
	down := map[string]bool{}
	for {
		snap := s.Store.Snapshot()
		next := s.lifecycle(ctx, snap, term)
		next = earlier(next, s.round(snap, down))
		if err := s.sleep(ctx, snap, next); err != nil {
			return err
		}
	}
}

// lead opens or closes the house.
func (s *Server) lead(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leading = on
	if on {
		return
	}
	for _, ss := range s.sessions {
		if ss.stream != nil {
			ss.stream.close()
		}
	}
	s.sessions = map[string]*session{}
}

// round offers what is free, tells of lost agents and sends updates.
func (s *Server) round(snap *state.Snapshot, down map[string]bool) (next time.Time) {
	now := time.Now()
	all := sched.Allocate(snap, now)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range all {
		n := all[i].Node
		gone := n.Status != model.NodeReady
		if gone && !down[n.ID] {
			for _, ss := range s.sessions {
				ss.send(&wire.Event{Type: wire.EventFailure, Failure: &wire.Failure{AgentID: &wire.ID{Value: n.ID}}})
			}
		}
		down[n.ID] = gone
	}
	for _, ss := range s.sessions {
		if ss.stream != nil {
			next = earlier(next, ss.pump(snap, now))
		}
	}
	if len(s.sessions) > 1 {
		next = earlier(next, now.Add(offerTimeout))
	}
	return earlier(next, s.share(all, now))
}

// lifecycle notes frameworks that lost their stream with the former leader,
// and removes those that stayed away too long.
func (s *Server) lifecycle(ctx context.Context, snap *state.Snapshot, term time.Time) (next time.Time) {
	now := time.Now()
	for f := range state.Frameworks.All(snap) {
		if f.Removed {
			continue
		}
		if s.attached(f.ID) {
			if !f.Connected { // a late note of an older stream's end
				back := *f
				back.Connected = true
				_, err := command.Do(ctx, s.Proposer, &command.PutFramework{Framework: back})
				s.warn(f.ID, err)
			}
			continue
		}
		if f.Connected {
			s.warn(f.ID, s.disconnected(ctx, f.ID))
			continue
		}
		ends := f.DisconnectedAt.Add(f.FailoverTimeout.D())
		if again := term.Add(comeBack); !f.DisconnectedAt.After(term.Add(settle)) && ends.Before(again) {
			ends = again
		}
		if ends.After(now) {
			next = earlier(next, ends)
			continue
		}
		_, err := command.Do(ctx, s.Proposer, &command.RemoveFramework{ID: f.ID, Why: "its scheduler did not come back in time", At: now})
		s.warn(f.ID, err)
		s.forget(f.ID)
	}
	return next
}

func (s *Server) warn(framework string, err error) {
	if err != nil {
		s.Log.Warn("a framework could not be updated", "framework", framework, "err", err)
	}
}

// attached reports whether the framework has a stream here, or is about to.
func (s *Server) attached(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	ss := s.sessions[id]
	return s.arriving[id] > 0 || ss != nil && ss.stream != nil
}

func (s *Server) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ss := s.sessions[id]; ss != nil && ss.stream == nil {
		delete(s.sessions, id)
	}
}

// disconnected writes that a framework has no stream; the failover timeout
// runs from now.
func (s *Server) disconnected(ctx context.Context, id string) error {
	old := state.Frameworks.Get(s.Store.Snapshot(), id)
	if old == nil || old.Removed || !old.Connected || s.attached(id) {
		return nil
	}
	f := *old
	f.Connected, f.DisconnectedAt = false, time.Now()
	_, err := command.Do(ctx, s.Proposer, &command.PutFramework{Framework: f})
	return err
}

// sleep waits for a change of the state, a call that changes offers, or next.
func (s *Server) sleep(ctx context.Context, snap *state.Snapshot, next time.Time) error {
	wait, cancel := context.WithCancel(ctx)
	if !next.IsZero() {
		wait, cancel = context.WithDeadline(ctx, next)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-s.poke:
		case <-wait.Done():
		}
		cancel()
	}()
	_ = snap.Wait(wait, state.Tasks.Name, state.Nodes.Name, state.Frameworks.Name)
	cancel()
	<-done
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(settle):
		return nil
	}
}
