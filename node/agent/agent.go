// Package agent supervises the tasks of one node. It reads the wish (tasks
// placed on this node) from the replicated state and is the only writer of
// what happened (task statuses).
//
// Every task has one worker, a goroutine that moves it one way: prepare,
// start, run, end. A checkpoint is on disk before a container is created, and
// containers carry labels, so that a restarted agent finds its containers
// again; stopping the agent never stops a container.
package agent

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"appliance/node/model"
	"appliance/node/runtime"
	"appliance/raft/command"
	"appliance/raft/state"
)

// Volumes mounts cluster volumes on this node.
type Volumes interface {
	// Mount makes the volume available and returns its directory on the
	// host. It is idempotent. A volume stays mounted while any task uses it.
	Mount(ctx context.Context, name string) (dir string, err error)
}

// Config is what an Agent needs. All fields but Volumes, Nameservers,
// Alone and Now are required.
type Config struct {
	Node     string // node id
	Name     string // node name
	Addr     string // node address that other nodes reach
	Dir      string // the agent's own directory, 0700
	Store    *state.Store
	Proposer command.Proposer
	Runtime  runtime.Runtime
	Volumes  Volumes
	// Fresh reports whether the state is in touch with a master, and Sync
	// returns when it shows all that was acknowledged before the call. What
	// the state does not know is only removed after both: a restarted agent
	// begins with an old state or none. Sync may be nil.
	Fresh func() bool
	Sync  func(ctx context.Context) error
	// Registry is the loopback endpoint under which images of the cluster's
	// registry are pulled, "127.0.0.1:5000".
	Registry    string
	Nameservers []string // for containers; none: the node's own
	// Alone is how long no master must have been heard before tasks that die
	// are started again here; 0: ten seconds.
	Alone time.Duration
	// Secrets fetches the secrets of a task, by name; nil: there are none. They
	// are kept in SecretDir, in memory, as long as the task is here.
	Secrets   func(ctx context.Context, task string) (map[string][]byte, error)
	SecretDir string
	// Now is the clock of what is reported; nil: time.Now.
	Now func() time.Time
	Log *slog.Logger
}

// Agent runs the tasks of one node.
type Agent struct {
	cfg     Config
	checks  *checkpoints
	report  *reporter
	contact *contact
	workers map[string]*worker // by task id; owned by Run
	swept   bool               // the state was certain once; before, what it wishes may be over long since
	wg      sync.WaitGroup
	done    chan string // ids of workers that have ended
}

// Open prepares an agent; its checkpoints are read and locked. Close releases
// them after Run has returned.
func Open(cfg Config) (*Agent, error) {
	if err := os.MkdirAll(filepath.Join(cfg.Dir, "tasks"), 0o700); err != nil {
		return nil, err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Alone == 0 {
		cfg.Alone = aloneAfter
	}
	checks, err := openCheckpoints(filepath.Join(cfg.Dir, "tasks.db"))
	if err != nil {
		return nil, err
	}
	return &Agent{
		cfg: cfg, checks: checks, report: newReporter(cfg.Node, cfg.Proposer, checks, cfg.Log),
		contact: &contact{fresh: cfg.Fresh, now: cfg.Now, after: cfg.Alone},
		workers: map[string]*worker{}, done: make(chan string, 64),
	}, nil
}

// Close releases the checkpoints.
func (a *Agent) Close() error { return a.checks.close() }

// tables whose changes concern an agent.
var tables = []string{state.Tasks.Name, state.Releases.Name, state.Nodes.Name}

// Run supervises until ctx ends. Containers go on after that.
func (a *Agent) Run(ctx context.Context) error {
	defer a.wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a.wg.Add(1)
	go func() { defer a.wg.Done(); a.report.run(ctx) }()
	if err := a.resume(ctx); err != nil {
		return err
	}
	for {
		a.contact.alone() // at least every second
		snap := a.cfg.Store.Snapshot()
		a.reconcile(ctx, snap)
		if !a.swept && a.synced(ctx) {
			a.swept = true
			snap = a.cfg.Store.Snapshot()
			a.reconcile(ctx, snap)
			a.sweep(ctx, snap)
		}
		if err := a.await(ctx, snap); err != nil {
			return nil // ctx has ended
		}
	}
}

// syncTime bounds the wait for a state that is certainly current; the loop
// stands still meanwhile.
const syncTime = time.Second

// synced reports whether the state shows all that was acknowledged before.
func (a *Agent) synced(ctx context.Context) bool {
	if !a.cfg.Fresh() {
		return false
	}
	if a.cfg.Sync == nil {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, syncTime)
	defer cancel()
	return a.cfg.Sync(ctx) == nil
}

// await returns when the state or a worker has moved, and at least every
// second, because Fresh has no signal.
func (a *Agent) await(ctx context.Context, snap *state.Snapshot) error {
	tick, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	changed := make(chan struct{})
	a.wg.Add(1)
	go func() { defer a.wg.Done(); defer close(changed); _ = snap.Wait(tick, tables...) }()
	select {
	case id := <-a.done:
		delete(a.workers, id)
		cancel()
	case <-changed:
	}
	return ctx.Err()
}

// resume starts workers for what the checkpoints hold, before any state is
// known: with all masters down the node goes on with what it ran.
func (a *Agent) resume(ctx context.Context) error {
	saved, err := a.checks.all()
	if err != nil {
		return err
	}
	for _, cp := range saved {
		if cp.Status.State.Terminal() {
			a.report.add(cp.Status)
			continue
		}
		a.spawn(ctx, cp.Task, cp.Spec, &cp)
	}
	return nil
}

// reconcile brings the workers in line with the state.
func (a *Agent) reconcile(ctx context.Context, snap *state.Snapshot) {
	a.report.seen(snap.Index())
	known := map[string]bool{}
	for t := range state.Tasks.By(snap, "node", a.cfg.Node) {
		known[t.ID] = true
		w := a.workers[t.ID]
		switch {
		case w != nil && (t.Stop || t.Status.State.Terminal()):
			w.stop(stopReason(t))
		case w == nil && a.swept && t.Live() && !a.report.over(t.ID):
			if spec := specOf(snap, t); spec != nil {
				a.spawn(ctx, *t, *spec, nil)
			}
		}
	}
	a.endUnknown(ctx, known)
}

// endUnknown ends what runs here and is not in the state, if the state is
// certainly not older than what runs.
func (a *Agent) endUnknown(ctx context.Context, known map[string]bool) {
	var unknown []string
	for id := range a.workers {
		if !known[id] {
			unknown = append(unknown, id)
		}
	}
	if len(unknown) == 0 || !a.synced(ctx) {
		return
	}
	snap := a.cfg.Store.Snapshot()
	for _, id := range unknown {
		if t := state.Tasks.Get(snap, id); t == nil || t.Node != a.cfg.Node {
			a.workers[id].stop("the cluster does not know the task any more")
		}
	}
}

func stopReason(t *model.Task) string {
	if t.Status.State.Terminal() {
		return "the cluster has given the task up: " + t.Status.Message
	}
	return t.StopWhy
}

func (a *Agent) spawn(ctx context.Context, t model.Task, spec model.AppSpec, cp *checkpoint) {
	w := newWorker(a, t, spec, cp)
	a.workers[t.ID] = w
	a.wg.Add(1)
	go func() {
		defer a.wg.Done()
		w.run(ctx)
		select {
		case a.done <- t.ID:
		case <-ctx.Done():
		}
	}()
}

// specOf is what a task runs: its release's spec, or that of a foreign
// framework's task.
func specOf(snap *state.Snapshot, t *model.Task) *model.AppSpec {
	if t.Foreign != nil {
		spec := foreignSpec(t.Foreign)
		return &spec
	}
	rel := state.Releases.Get(snap, model.ReleaseKey(t.App, t.Release))
	if rel == nil {
		return nil // arrives with the same snapshot as the task, or the app is gone
	}
	spec := rel.Spec
	if rel.Digest != "" {
		spec.Image = pinned(spec.Image, rel.Digest)
	}
	return &spec
}

// sweep removes containers and files of tasks that nobody knows: left by a
// crash between two steps, or by a node that was declared dead meanwhile.
func (a *Agent) sweep(ctx context.Context, snap *state.Snapshot) {
	list, err := a.cfg.Runtime.List(ctx, map[string]string{labelNode: a.cfg.Node})
	if err != nil {
		a.cfg.Log.Warn("cannot list containers", "err", err)
		return
	}
	for _, c := range list {
		id := c.Labels[labelTask]
		if a.workers[id] != nil {
			continue
		}
		a.cfg.Log.Info("remove container of an unknown task", "task", id, "container", c.ID)
		if err := a.cfg.Runtime.Remove(ctx, c.ID); err != nil {
			a.cfg.Log.Warn("cannot remove container", "container", c.ID, "err", err)
		}
	}
	a.pruneDirs(snap)
	a.sweepSecrets()
}

// keepDirs is how many directories of ended tasks stay for `appliance logs`.
const keepDirs = 100

func (a *Agent) pruneDirs(snap *state.Snapshot) {
	entries, err := os.ReadDir(a.tasksDir())
	if err != nil {
		return
	}
	var ended []string
	for _, e := range entries {
		if a.workers[e.Name()] == nil && state.Tasks.Get(snap, e.Name()) == nil {
			ended = append(ended, e.Name())
		}
	}
	for len(ended) > keepDirs {
		os.RemoveAll(filepath.Join(a.tasksDir(), ended[0]))
		ended = ended[1:]
	}
}

func (a *Agent) tasksDir() string { return filepath.Join(a.cfg.Dir, "tasks") }

// LogDir is where the output files of a task lie: "stdout" and "stderr".
func (a *Agent) LogDir(task string) string { return LogDir(a.cfg.Dir, task) }

// LogDir is the output directory of a task below an agent's directory. The
// task id must have been checked by the caller against the state: it becomes
// part of a path.
func LogDir(dir, task string) string {
	return filepath.Join(dir, "tasks", containerID(task), "logs")
}
