// Package check runs the health checks that were registered through the Consul
// dialect on this node: HTTP, TCP and TTL. (Checks of tasks are run by the
// agent beside the task.)
//
// Outcomes go to the log only when they change something: a probe that says
// the same again, or a heartbeat in time, costs the cluster nothing.
package check

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
)

// Limits, as in Consul where it has them.
const (
	// MaxOutput bounds the output of a check in bytes.
	MaxOutput = 4 << 10
	// MinInterval keeps a check from becoming a load.
	MinInterval = time.Second
	// MinDeregisterAfter is the shortest DeregisterAfter that is honoured.
	MinDeregisterAfter = time.Minute

	defaultInterval = 10 * time.Second
	defaultTimeout  = 10 * time.Second
	// outputEvery is how long a change of output alone is held back.
	outputEvery = 5 * time.Minute
	reapEvery   = 30 * time.Second
	// maxProbes bounds the probes that run at once.
	maxProbes      = 64
	proposeTimeout = 10 * time.Second
	// retryPropose is the pause after the log did not take an outcome.
	retryPropose = 2 * time.Second
)

// Config is what a Runner needs.
type Config struct {
	Store    *state.Store
	Node     string // name of this node: its checks are run here
	Proposer command.Proposer
	Log      *slog.Logger
}

// Runner runs the checks of one node. Safe for concurrent use.
type Runner struct {
	cfg    Config
	client *http.Client
	probes chan struct{}

	mu       sync.Mutex
	running  map[string]*running  // by check id
	critical map[string]time.Time // since when, by check id
}

// running is a check that is being watched.
type running struct {
	spec   string // what it was started for
	cancel context.CancelFunc
	beat   chan struct{} // a heartbeat of a TTL check
}

// New returns a Runner that does nothing before Run.
func New(cfg Config) *Runner {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Runner{
		cfg: cfg, client: newClient(), probes: make(chan struct{}, maxProbes),
		running: map[string]*running{}, critical: map[string]time.Time{},
	}
}

// Run keeps one loop per registered check until ctx ends.
func (r *Runner) Run(ctx context.Context) error {
	var loops sync.WaitGroup
	defer loops.Wait()
	defer r.stopAll()
	for {
		snap := r.cfg.Store.Snapshot()
		r.reconcile(ctx, snap, &loops)
		r.reap(ctx, snap, time.Now())
		wait, cancel := context.WithTimeout(ctx, reapEvery)
		snap.Wait(wait, state.Checks.Name)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// reconcile starts and stops loops so that they are those of the state.
func (r *Runner) reconcile(ctx context.Context, snap *state.Snapshot, loops *sync.WaitGroup) {
	r.mu.Lock()
	defer r.mu.Unlock()
	wanted := map[string]bool{}
	for c := range state.Checks.By(snap, "node", r.cfg.Node) {
		spec := specOf(c)
		if spec == "" {
			continue
		}
		wanted[c.ID] = true
		if old := r.running[c.ID]; old != nil {
			if old.spec == spec {
				continue
			}
			old.cancel()
		}
		inner, cancel := context.WithCancel(ctx)
		run := &running{spec: spec, cancel: cancel, beat: make(chan struct{}, 1)}
		r.running[c.ID] = run
		loops.Go(func() { r.loop(inner, *c, run) })
	}
	for id, run := range r.running {
		if !wanted[id] {
			run.cancel()
			delete(r.running, id)
		}
	}
}

func (r *Runner) stopAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, run := range r.running {
		run.cancel()
		delete(r.running, id)
	}
}

// specOf is the text of what is to be run, empty for checks that somebody else
// reports. A new creation starts a TTL anew.
func specOf(c *model.ExternalCheck) string {
	s := c.Spec
	if s.HTTP == "" && s.TCP == "" && s.TTL <= 0 {
		return ""
	}
	return fmt.Sprintf("%v %d", s, c.CreateIndex)
}

func (r *Runner) loop(ctx context.Context, c model.ExternalCheck, run *running) {
	if c.Spec.TTL > 0 {
		r.expire(ctx, c, run)
		return
	}
	every := max(orDefault(c.Spec.Interval.D(), defaultInterval), MinInterval)
	pause := time.Duration(rand.Int64N(int64(min(every, defaultInterval)))) // so that checks do not run in step
	for sleep(ctx, pause) {
		status, output := r.probe(ctx, c.Spec)
		if ctx.Err() != nil {
			return
		}
		pause = every
		if err := r.report(ctx, c.ID, status, output); err != nil {
			pause = min(every, retryPropose)
		}
	}
}

// expire makes a TTL check critical when no heartbeat came in time. The time
// starts anew with the process, so a restart gives everybody a full TTL.
func (r *Runner) expire(ctx context.Context, c model.ExternalCheck, run *running) {
	pause := c.Spec.TTL.D()
	for {
		select {
		case <-ctx.Done():
			return
		case <-run.beat:
			pause = c.Spec.TTL.D()
		case <-time.After(pause):
			err := r.report(ctx, c.ID, "critical", "TTL expired")
			if err != nil {
				pause = retryPropose
				continue
			}
			select { // expired and said so: wait for life
			case <-ctx.Done():
				return
			case <-run.beat:
				pause = c.Spec.TTL.D()
			}
		}
	}
}

// Update is a heartbeat of a TTL check with its outcome.
func (r *Runner) Update(ctx context.Context, id, status, output string) error {
	c := state.Checks.Get(r.cfg.Store.Snapshot(), r.cfg.Node+"\x00"+id)
	if c == nil {
		return model.Errorf(model.CodeNotFound, "Unknown check ID %q. Ensure that the check ID is passed, not the check name.", id)
	}
	if c.Spec.TTL <= 0 {
		return model.Errorf(model.CodeInvalid, "CheckID %q does not have associated TTL", id)
	}
	r.mu.Lock()
	if run := r.running[id]; run != nil {
		select {
		case run.beat <- struct{}{}:
		default: // one is waiting already
		}
	}
	r.mu.Unlock()
	return r.report(ctx, id, status, output)
}

// report proposes an outcome if it differs from the stored one. A change of
// the output alone is held back, so that a chatty check does not write all the
// time.
func (r *Runner) report(ctx context.Context, id, status, output string) error {
	old := state.Checks.Get(r.cfg.Store.Snapshot(), r.cfg.Node+"\x00"+id)
	if old == nil {
		return nil // deregistered meanwhile
	}
	output = Bound(output)
	now := time.Now()
	if old.Status == status && (old.Output == output || now.Sub(old.UpdatedAt) < outputEvery) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, proposeTimeout)
	defer cancel()
	_, err := command.Do(ctx, r.cfg.Proposer, &command.UpdateCheck{Node: r.cfg.Node, ID: id, Status: status, Output: output, At: now})
	if err == nil && old.Status != status {
		r.cfg.Log.Info("check", "node", r.cfg.Node, "check", id, "status", status, "was", old.Status)
	}
	return err
}

// reap deregisters services that have been critical for as long as their
// checks say.
func (r *Runner) reap(ctx context.Context, snap *state.Snapshot, now time.Time) {
	seen := map[string]bool{}
	for c := range state.Checks.By(snap, "node", r.cfg.Node) {
		if c.Status != "critical" {
			continue
		}
		seen[c.ID] = true
		since, ok := r.critical[c.ID]
		if !ok {
			r.critical[c.ID] = now
			continue
		}
		after := c.Spec.DeregisterAfter.D()
		if after <= 0 || c.Service == "" || now.Sub(since) < max(after, MinDeregisterAfter) {
			continue
		}
		inner, cancel := context.WithTimeout(ctx, proposeTimeout)
		_, err := command.Do(inner, r.cfg.Proposer, &command.DeregisterService{Node: r.cfg.Node, ID: c.Service})
		cancel()
		if err == nil {
			r.cfg.Log.Info("service deregistered", "node", r.cfg.Node, "service", c.Service, "check", c.ID, "critical", now.Sub(since))
		}
	}
	for id := range r.critical {
		if !seen[id] {
			delete(r.critical, id)
		}
	}
}

// Bound cuts an output to MaxOutput without breaking a character.
func Bound(output string) string {
	if len(output) <= MaxOutput {
		return output
	}
	return strings.ToValidUTF8(output[:MaxOutput], "")
}

func orDefault(d, fallback time.Duration) time.Duration {
	if d <= 0 {
		return fallback
	}
	return d
}

// sleep reports whether the pause passed before ctx ended.
func sleep(ctx context.Context, pause time.Duration) bool {
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
