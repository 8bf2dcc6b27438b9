package sched_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
	"appliance/sched"
	"appliance/sched/schedtest"

	"go.uber.org/goleak"
)

// opinions is a Liveness that tests turn.
type opinions struct {
	mu      sync.Mutex
	dead    map[string]time.Time
	changed chan struct{}
}

func (o *opinions) Alive(node string) (bool, time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	since, dead := o.dead[node]
	if !dead {
		return true, time.Now().Add(-time.Minute)
	}
	return false, since
}

func (o *opinions) Changed() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.changed
}

func (o *opinions) kill(nodes ...string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, n := range nodes {
		o.dead[n] = time.Now()
	}
	close(o.changed)
	o.changed = make(chan struct{})
}

func (o *opinions) revive(node string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.dead, node)
	close(o.changed)
	o.changed = make(chan struct{})
}

func start(t *testing.T, c *schedtest.Cluster, change func(*sched.Loop)) {
	l := &sched.Loop{Store: c.Store, Proposer: c, NewID: c.NewID, Self: "self", Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	if change != nil {
		change(l)
	}
	schedtest.Start(t, func(ctx context.Context) {
		if err := l.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("loop ended with %v", err)
		}
	})
	schedtest.Start(t, c.Agents)
}

func fourAgents(t *testing.T) *schedtest.Cluster {
	c := schedtest.New(t)
	for name, env := range map[string]string{"ms1": "test", "ms2": "test", "ms3": "production", "ms4": "production"} {
		c.AddAgent(t, name, env)
	}
	return c
}

type receipts struct {
	mu    sync.Mutex
	calls []string
}

func (r *receipts) Begin(d *model.Deployment) { r.note("begin " + d.ID) }
func (r *receipts) Finish(d *model.Deployment) *model.Receipt {
	r.note("finish " + d.ID)
	return &model.Receipt{Requests: 7}
}

func (r *receipts) note(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, s)
}

func TestLoopDeploysScalesAndDeletes(t *testing.T) {
	c, r := fourAgents(t), &receipts{}
	start(t, c, func(l *sched.Loop) { l.Receipts = r })
	const app = "/test/notejam"
	id := c.Deploy(t, model.AppSpec{ID: app, Instances: 3, Ports: []model.Port{{ContainerPort: 80}}})
	c.Eventually(t, "the deployment succeeds", func(s *state.Snapshot) bool { return schedtest.Ended(s, id, model.DeploymentSucceeded) })
	snap := c.Store.Snapshot()
	if got := schedtest.Ready(snap, app); got["ms1"]+got["ms2"] != 3 || got["ms1"] == 0 || got["ms2"] == 0 {
		t.Errorf("tasks by node: %v", got)
	}
	if rc := state.Deployments.Get(snap, id).Receipt; rc == nil || rc.Requests != 7 || !rc.Passed || rc.FirstHealthy <= 0 || rc.Took < rc.FirstHealthy {
		t.Errorf("receipt %+v", rc)
	}
	r.mu.Lock()
	if got := strings.Join(r.calls, ","); got != "begin "+id+",finish "+id {
		t.Errorf("calls %s", got)
	}
	r.mu.Unlock()
	for _, n := range []int{6, 2} {
		c.Must(t, &command.ScaleApp{App: app, Instances: n, Deployment: model.Deployment{ID: c.NewID(), Kind: "scale", StartedAt: time.Now()}})
		c.Eventually(t, "scaled", func(s *state.Snapshot) bool {
			return schedtest.Sum(schedtest.Ready(s, app)) == n && state.Apps.Get(s, app).Deployment == ""
		})
	}
	c.Must(t, &command.DeleteApp{App: app, At: time.Now()})
	c.Eventually(t, "nothing is left", func(s *state.Snapshot) bool {
		return state.Tasks.Count(s) == 0 && state.Releases.Count(s) == 0
	})
}

func TestLoopReplacesTasksOfDeadAgent(t *testing.T) {
	c, o := fourAgents(t), &opinions{dead: map[string]time.Time{}, changed: make(chan struct{})}
	start(t, c, func(l *sched.Loop) { l.Liveness, l.DeadAfter = o, 100*time.Millisecond })
	const app = "/test/a"
	id := c.Deploy(t, model.AppSpec{ID: app, Instances: 4})
	c.Eventually(t, "running", func(s *state.Snapshot) bool { return schedtest.Ended(s, id, model.DeploymentSucceeded) })
	o.kill("ms1")
	c.Eventually(t, "all on ms2", func(s *state.Snapshot) bool { return schedtest.Ready(s, app)["ms2"] == 4 })
	if n := state.Nodes.Get(c.Store.Snapshot(), "ms1"); n.Status != model.NodeDown || n.StatusWhy == "" {
		t.Errorf("node %+v", n)
	}
	o.revive("ms1")
	c.Eventually(t, "ready again", func(s *state.Snapshot) bool { return state.Nodes.Get(s, "ms1").Status == model.NodeReady })
}

func TestLoopDoubtsTheDeathOfMost(t *testing.T) {
	c, o := fourAgents(t), &opinions{dead: map[string]time.Time{}, changed: make(chan struct{})}
	start(t, c, func(l *sched.Loop) { l.Liveness, l.DeadAfter = o, time.Millisecond })
	o.kill("ms1", "ms2", "ms3")
	id := c.Deploy(t, model.AppSpec{ID: "/test/a", Instances: 1})
	c.Eventually(t, "work goes on", func(s *state.Snapshot) bool { return schedtest.Ended(s, id, model.DeploymentSucceeded) })
	time.Sleep(50 * time.Millisecond)
	for n := range state.Nodes.All(c.Store.Snapshot()) {
		if n.Status != model.NodeReady {
			t.Errorf("%s is %s", n.ID, n.Status)
		}
	}
}

func TestLoopExplainsWhatWaits(t *testing.T) {
	c := fourAgents(t)
	start(t, c, nil)
	const app = "/test/a"
	c.Deploy(t, model.AppSpec{ID: app, Instances: 3, Resources: model.Resources{CPUs: 3}})
	c.Eventually(t, "one waits", func(s *state.Snapshot) bool {
		w := state.Waiting.Get(s, app)
		return w != nil && w.Tasks == 1 && len(w.Refusals) == 4
	})
	if e := sched.ExplainApp(c.Store.Snapshot(), app, time.Now()); e == nil || !strings.Contains(e.Cause, "lack cpus") {
		t.Errorf("%+v", e)
	}
	c.AddAgent(t, "ms5", "test")
	c.Eventually(t, "none waits", func(s *state.Snapshot) bool { return state.Waiting.Get(s, app) == nil })
	if e := sched.ExplainApp(c.Store.Snapshot(), app, time.Now()); e != nil {
		t.Errorf("%+v", e)
	}
}

func TestLoopSurvivesLostProposals(t *testing.T) {
	c := fourAgents(t)
	n := 0
	c.Fail = func(cmd command.Command) error {
		if _, ours := cmd.(*command.Batch); ours {
			if n++; n <= 2 {
				return errors.New("no leader")
			}
		}
		return nil
	}
	start(t, c, nil)
	id := c.Deploy(t, model.AppSpec{ID: "/test/a", Instances: 2})
	c.Eventually(t, "it succeeds in the end", func(s *state.Snapshot) bool { return schedtest.Ended(s, id, model.DeploymentSucceeded) })
}

func TestLoopCreatesVolumesFirst(t *testing.T) {
	c := fourAgents(t)
	tries := 0
	start(t, c, func(l *sched.Loop) {
		l.EnsureVolume = func(ctx context.Context, name, env string) error {
			if tries++; tries == 1 {
				return errors.New("no server yet")
			}
			_, err := command.Do(ctx, c, &command.PutVolume{Volume: model.Volume{Name: name, Env: env, Primary: "ms1"}})
			return err
		}
	})
	id := c.Deploy(t, model.AppSpec{ID: "/test/a", Instances: 1, Volumes: []model.VolumeMount{{Name: "data", Path: "/data"}}})
	c.Eventually(t, "it waits for the volume", func(s *state.Snapshot) bool {
		w := state.Waiting.Get(s, "/test/a")
		return w != nil && w.Refusals[0].Code == model.RefusedEnvironment || w != nil && w.Refusals[0].Code == model.RefusedVolume
	})
	c.Eventually(t, "it succeeds", func(s *state.Snapshot) bool { return schedtest.Ended(s, id, model.DeploymentSucceeded) })
	if v := state.Volumes.Get(c.Store.Snapshot(), "data"); v == nil || v.Env != "test" {
		t.Errorf("volume %+v", v)
	}
}

func TestLoopForgetsEndedTasks(t *testing.T) {
	c := fourAgents(t)
	start(t, c, nil)
	const app = "/test/a"
	for range 8 {
		id := c.Deploy(t, model.AppSpec{ID: app, Instances: 2})
		c.Eventually(t, "rolled", func(s *state.Snapshot) bool { return schedtest.Ended(s, id, model.DeploymentSucceeded) })
	}
	c.Eventually(t, "ten ended ones are left", func(s *state.Snapshot) bool {
		ended := 0
		for task := range state.Tasks.By(s, "app", app) {
			if !task.Live() {
				ended++
			}
		}
		return ended == 10
	})
}

// A loop that has nothing to do must not write: every entry costs three disks.
func TestLoopComesToRest(t *testing.T) {
	c := fourAgents(t)
	start(t, c, nil)
	id := c.Deploy(t, model.AppSpec{ID: "/test/a", Instances: 2})
	c.Deploy(t, model.AppSpec{ID: "/test/b", Instances: 1, Resources: model.Resources{CPUs: 99}})
	c.Eventually(t, "done", func(s *state.Snapshot) bool {
		return schedtest.Ended(s, id, model.DeploymentSucceeded) && state.Waiting.Get(s, "/test/b") != nil
	})
	time.Sleep(20 * time.Millisecond)
	before := c.Store.Index()
	time.Sleep(100 * time.Millisecond)
	if after := c.Store.Index(); after != before {
		t.Errorf("%d entries were written at rest", after-before)
	}
}

// A leader goes on where another stopped, whenever that was.
func TestNextLeaderGoesOn(t *testing.T) {
	c := fourAgents(t)
	schedtest.Start(t, c.Agents)
	const app = "/test/a"
	id := c.Deploy(t, model.AppSpec{ID: app, Instances: 6})
	for i := 0; !schedtest.Ended(c.Store.Snapshot(), id, model.DeploymentSucceeded); i++ {
		if i == 1000 {
			t.Fatal("a thousand leaders have not done it")
		}
		l := &sched.Loop{Store: c.Store, Proposer: c, NewID: c.NewID, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(1+i%7)*time.Millisecond)
		_ = l.Run(ctx)
		cancel()
	}
	if got := schedtest.Sum(schedtest.Ready(c.Store.Snapshot(), app)); got != 6 {
		t.Errorf("%d tasks run", got)
	}
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
