package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"appliance/node/model"
	"appliance/node/runtime"
)

// Without masters nobody replaces a task that dies. The node then starts it
// again itself: the same task in the same place, which goes on to be running
// as far as anybody was told. When a master answers again, deaths are reported
// and tasks replaced as ever. A task that only fails its checks is left alone,
// since the cause may be what is away with the masters, such as a volume.

const (
	// aloneAfter is longer than any change of leader: a death that a master will
	// hear of soon is the master's to mend.
	aloneAfter = 10 * time.Second
	// Pauses between restarts of one task, as a master would make them too.
	restartPause    = time.Second
	restartPauseMax = 30 * time.Second
	// restartCalm is how long a task must have run to start with short pauses again.
	restartCalm = time.Minute
	// standInPoll is how often a worker looks whether masters are back.
	standInPoll = 250 * time.Millisecond
)

// contact remembers when a master was last heard. Safe for concurrent use.
type contact struct {
	fresh func() bool
	now   func() time.Time
	after time.Duration

	mu   sync.Mutex
	last time.Time
}

// alone reports whether no master has been heard for a while, and whether one
// is heard now.
func (c *contact) alone() (alone, fresh bool) {
	fresh = c.fresh()
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.now(); fresh || c.last.IsZero() {
		c.last = now
	}
	return c.now().Sub(c.last) >= c.after, fresh
}

// restarter is an engine that can bring up again what has ended, without
// asking anybody for the image.
type restarter interface {
	restart(ctx context.Context) error
}

// restarts counts those of one task.
type restarts struct {
	count int
	pause time.Duration
	last  time.Time
}

// standIn starts the task again if it has ended by itself and no master can
// be told. false means that the end counts.
func (w *worker) standIn(ctx context.Context, r *restarts) bool {
	eng, can := w.eng.(restarter)
	if !can || w.task.Foreign != nil {
		return false // an external framework decides for itself
	}
	for {
		alone, fresh := w.a.contact.alone()
		switch {
		case w.asked(), ctx.Err() != nil:
			return false
		case fresh && w.a.synced(ctx): // just heard is not enough: the masters may be gone since
			return false
		case alone && w.a.cfg.Now().Sub(r.last) >= r.pause:
			if w.startAgain(ctx, eng, r) {
				return true
			}
		}
		sleep(ctx, standInPoll)
	}
}

func (w *worker) asked() bool {
	select {
	case <-w.stopped:
		return true
	default:
		return false
	}
}

func (w *worker) startAgain(ctx context.Context, eng restarter, r *restarts) bool {
	now := w.a.cfg.Now()
	if r.count == 0 || now.Sub(r.last) >= restartCalm {
		r.pause = restartPause
	} else {
		r.pause = min(2*r.pause, restartPauseMax)
	}
	r.last, r.count = now, r.count+1
	if err := eng.restart(ctx); err != nil {
		w.log.Warn("cannot start the task again without a master", "tries", r.count, "err", err)
		return false
	}
	why := fmt.Sprintf("started again here, for the %s time, while no master answered", ordinal(r.count))
	w.log.Info("task", "state", model.TaskRunning, "why", why)
	w.set(func(st *model.TaskStatus) {
		st.StartedAt, st.Message, st.Healthy, st.IP = now, why, nil, w.eng.ip(ctx)
	})
	return true
}

func ordinal(n int) string {
	switch {
	case n%10 == 1 && n%100 != 11:
		return fmt.Sprintf("%dst", n)
	case n%10 == 2 && n%100 != 12:
		return fmt.Sprintf("%dnd", n)
	case n%10 == 3 && n%100 != 13:
		return fmt.Sprintf("%drd", n)
	}
	return fmt.Sprintf("%dth", n)
}

// restart makes the container anew from the image that is here.
func (c *container) restart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	// Not remove: the secrets that are in memory here are all that can be had.
	if err := c.cfg.Runtime.Remove(ctx, c.id()); err != nil && !errors.Is(err, runtime.ErrNotFound) {
		return err
	}
	mounts, err := c.mounts(ctx)
	if err != nil {
		return err
	}
	secret, err := c.keptSecrets()
	if err != nil {
		return err
	}
	spec := containerSpec(c.cfg, c.task, c.spec, append(mounts, secret...))
	spec.Wrap = c.wrapped(nil)
	if err := c.cfg.Runtime.Create(ctx, spec); err != nil {
		return err
	}
	return c.cfg.Runtime.Start(ctx, spec.ID)
}
