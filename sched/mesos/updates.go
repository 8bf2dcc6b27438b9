package mesos

import (
	"bytes"
	"time"

	"appliance/node/model"
	"appliance/raft/state"
	"appliance/sched"
	"appliance/sched/mesos/wire"
)

// An update that is not acknowledged is sent again after firstResend,
// doubling up to maxResend, as agents of Mesos do.
const (
	firstResend = 10 * time.Second
	maxResend   = 10 * time.Minute
)

// updates are the statuses of one task that its scheduler has not
// acknowledged, oldest first. Only the first is in flight.
type updates struct {
	queue []update
	last  model.TaskStatus // the newest that was queued
	sent  time.Time        // of the first; zero: not yet
	delay time.Duration    // until it is sent again
}

type update struct {
	seq    uint64
	status *wire.TaskStatus // with UUID
}

// pump queues what is new about the framework's tasks and sends what is due.
// It returns when the next one may be. Server.mu is held.
func (ss *session) pump(snap *state.Snapshot, now time.Time) (next time.Time) {
	known := map[string]bool{}
	for t := range state.Tasks.By(snap, "framework", ss.framework.ID) {
		known[t.ID] = true
		u := ss.updates[t.ID]
		if u == nil {
			if t.Status.Seq == 0 || sched.Acknowledged(t) {
				continue
			}
			u = &updates{}
			ss.updates[t.ID] = u
		}
		ss.enqueue(u, t)
		next = earlier(next, ss.flush(u, now))
	}
	for id := range ss.updates {
		if !known[id] {
			delete(ss.updates, id)
		}
	}
	return next
}

// enqueue adds the present status if it says something new.
func (ss *session) enqueue(u *updates, t *model.Task) {
	st := t.Status
	if st.State == u.last.State && same(st.Healthy, u.last.Healthy) || st.State == model.TaskKilling && !ss.has(2) { // TASK_KILLING_STATE
		return
	}
	out := status(t)
	id := sched.StatusUUID(t)
	out.UUID = id[:]
	if st.State == u.last.State {
		reason := wire.ReasonHealthChanged
		out.Reason = &reason
	}
	u.last = st
	u.queue = append(u.queue, update{st.Seq, out})
}

func same(a, b *bool) bool { return a == nil && b == nil || a != nil && b != nil && *a == *b }

// flush sends the first update if it is due, and says when it is due again.
func (ss *session) flush(u *updates, now time.Time) time.Time {
	if len(u.queue) == 0 {
		return time.Time{}
	}
	if due := u.sent.Add(u.delay); !u.sent.IsZero() && due.After(now) {
		return due
	}
	if u.delay = min(u.delay*2, maxResend); u.sent.IsZero() {
		u.delay = firstResend
	}
	u.sent = now
	ss.send(&wire.Event{Type: wire.EventUpdate, Update: &wire.Update{Status: u.queue[0].status}})
	return now.Add(u.delay)
}

// acknowledged drops the update in flight if it is the one, and sends the
// next.
func (s *Server) acknowledged(ss *session, task string, uuid []byte) (seq uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := ss.updates[task]
	if u == nil || len(u.queue) == 0 || !bytes.Equal(u.queue[0].status.UUID, uuid) {
		return 0, false
	}
	seq = u.queue[0].seq
	u.queue, u.sent = u.queue[1:], time.Time{}
	ss.flush(u, time.Now())
	s.wake()
	return seq, true
}

// status is a task's present status without UUID.
func status(t *model.Task) *wire.TaskStatus {
	st := t.Status
	source := wire.SourceAgent
	if st.Node == "" {
		source = wire.SourceMaster
	}
	out := &wire.TaskStatus{
		TaskID: &wire.ID{Value: foreignID(t)}, State: wire.TaskStateOf(string(st.State)), Message: st.Message, AgentID: &wire.ID{Value: t.Node},
		Timestamp: unix(st.At), Healthy: st.Healthy, Source: &source, Reason: wire.ReasonOf(st.Reason),
	}
	if t.Foreign != nil && t.Foreign.Executor != "" {
		out.ExecutorID = &wire.ID{Value: t.Foreign.Executor}
	}
	if st.IP != "" {
		out.Container = &wire.ContainerStatus{Networks: []wire.NetworkInfo{{Addresses: []wire.IPAddress{{Protocol: 1, Address: st.IP}}}}}
	}
	return out
}

// foreignID is the id under which its framework knows a task.
func foreignID(t *model.Task) string {
	if t.Foreign != nil {
		return t.Foreign.TaskID
	}
	return t.ID
}
