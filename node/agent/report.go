package agent

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"appliance/node/model"
	"appliance/raft/command"
)

// reporter sends statuses to the cluster in batches and keeps each until it
// is committed. Only the newest status of a task is sent: states are
// monotonic, so a skipped one carries nothing that the newer does not.
type reporter struct {
	node     string
	proposer command.Proposer
	checks   *checkpoints
	log      *slog.Logger

	mu      sync.Mutex
	pending map[string]model.TaskStatus
	ended   map[string]uint64 // terminal; the index at which that was committed, 0 before
	wake    chan struct{}
}

const (
	// gather is how long the reporter waits for more before it sends.
	gather = 3 * time.Millisecond
	// maxReport bounds one Observe entry.
	maxReport = 500
	// proposeWait bounds one try; leaders change within about a second.
	proposeWait = 10 * time.Second
	retryWait   = 200 * time.Millisecond
)

func newReporter(node string, p command.Proposer, c *checkpoints, log *slog.Logger) *reporter {
	return &reporter{node: node, proposer: p, checks: c, log: log,
		pending: map[string]model.TaskStatus{}, ended: map[string]uint64{}, wake: make(chan struct{}, 1)}
}

func (r *reporter) add(st model.TaskStatus) {
	r.mu.Lock()
	r.pending[st.Task] = st
	if st.State.Terminal() {
		r.ended[st.Task] = 0
	}
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// over reports whether the task has ended here although the state may not
// know it yet.
func (r *reporter) over(task string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ended := r.ended[task]
	return ended
}

// seen forgets the ends that the state knows, which is as of index: a proposal may return before its entry
// is applied here.
func (r *reporter) seen(index uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.ended, func(_ string, at uint64) bool { return at != 0 && at <= index })
}

// heard reports whether all that was reported of the task is committed.
func (r *reporter) heard(task string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, waits := r.pending[task]
	return !waits
}

func (r *reporter) run(ctx context.Context) {
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		}
		sleep(ctx, gather)
		for batch := r.batch(); len(batch) > 0 && ctx.Err() == nil; batch = r.batch() {
			err := r.send(ctx, batch)
			if (err != nil) != failing {
				failing = err != nil
				r.log.Info("status reports", "reach the cluster", !failing, "err", err)
			}
			if err != nil {
				sleep(ctx, retryWait)
			}
		}
	}
}

func (r *reporter) batch() []model.TaskStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []model.TaskStatus
	for _, st := range r.pending {
		if out = append(out, st); len(out) == maxReport {
			break
		}
	}
	return out
}

func (r *reporter) send(ctx context.Context, batch []model.TaskStatus) error {
	try, cancel := context.WithTimeout(ctx, proposeWait)
	defer cancel()
	res, err := command.Do(try, r.proposer, &command.Observe{Node: r.node, Statuses: batch})
	if err != nil {
		return err
	}
	if over := r.committed(batch, res.Index); len(over) > 0 {
		if err := r.checks.remove(over...); err != nil {
			r.log.Warn("cannot remove checkpoints", "tasks", over, "err", err)
		}
	}
	return nil
}

// committed forgets what the cluster knows as of index and tells which tasks are over.
func (r *reporter) committed(batch []model.TaskStatus, index uint64) (over []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, st := range batch {
		if r.pending[st.Task].Seq == st.Seq {
			delete(r.pending, st.Task)
		}
		if st.State.Terminal() {
			r.ended[st.Task] = index
			over = append(over, st.Task)
		}
	}
	return over
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
