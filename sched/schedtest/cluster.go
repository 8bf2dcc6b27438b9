// Package schedtest is a cluster for tests: a real state, a proposer that
// applies at once, and fake agents that run tasks by reporting on them.
package schedtest

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
)

// Cluster is one log without a network. Safe for concurrent use.
type Cluster struct {
	Store *state.Store
	mu    sync.Mutex
	ids   int
	// Fail, if set, may refuse a proposal before it is applied.
	Fail func(command.Command) error
	// Behave says how a placed task goes on; nil runs it, healthy. It is
	// called again whenever the tasks change, until the task is terminal.
	Behave func(t *model.Task, st *model.TaskStatus)
}

// New gives a cluster with the environments test and production, which select
// by the attribute env.
func New(t testing.TB) *Cluster {
	c := &Cluster{Store: state.New()}
	for _, env := range []string{"test", "production"} {
		c.Must(t, &command.PutEnvironment{Environment: model.Environment{Name: env, Selector: map[string]string{"env": env}}})
	}
	return c
}

// Propose implements command.Proposer. Like the log it encodes and decodes.
func (c *Cluster) Propose(ctx context.Context, cmd command.Command) (command.Result, error) {
	if err := ctx.Err(); err != nil {
		return command.Result{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.Fail != nil {
		if err := c.Fail(cmd); err != nil {
			return command.Result{}, err
		}
	}
	raw, err := command.Encode(cmd)
	if err != nil {
		return command.Result{}, err
	}
	tx := c.Store.Begin()
	index := tx.Index() + 1
	res, err := command.Apply(tx, index, raw)
	tx.Commit(index)
	return res, err
}

// Must proposes and fails the test on any refusal.
func (c *Cluster) Must(t testing.TB, cmd command.Command) command.Result {
	t.Helper()
	res, err := command.Do(context.Background(), c, cmd)
	if err != nil {
		t.Fatalf("%T: %v", cmd, err)
	}
	return res
}

// NewID gives short unique ids.
func (c *Cluster) NewID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ids++
	return fmt.Sprintf("%012x", c.ids)
}

// AddAgent adds a ready agent with 4 cpus and 4096 MiB.
func (c *Cluster) AddAgent(t testing.TB, name, env string) {
	t.Helper()
	c.Must(t, &command.RegisterNode{Node: model.Node{
		ID: name, Name: name, Role: model.RoleAgent, Addr: "127.0.0.1", Status: model.NodeReady,
		Capacity: model.Resources{CPUs: 4, Memory: 4096, Disk: 10000}, Attributes: map[string]string{"env": env},
		PortRange: [2]int{31000, 31999},
	}})
}

// Deploy creates a release and gives the deployment's id.
func (c *Cluster) Deploy(t testing.TB, spec model.AppSpec) string {
	t.Helper()
	if spec.Image == "" {
		spec.Image = "image"
	}
	id := c.NewID()
	c.Must(t, &command.CreateRelease{
		Release:   model.Release{App: spec.ID, Spec: spec, CreatedAt: time.Now()},
		Instances: spec.Instances, Deployment: model.Deployment{ID: id, Kind: "deploy", StartedAt: time.Now()},
	})
	return id
}

// Agents plays all agents until ctx ends: placed tasks run, stopped ones end.
func (c *Cluster) Agents(ctx context.Context) {
	for {
		snap := c.Store.Snapshot()
		for t := range state.Tasks.All(snap) {
			if n := state.Nodes.Get(snap, t.Node); n != nil && n.Status == model.NodeReady && t.Live() {
				c.play(ctx, t)
			}
		}
		if snap.Wait(ctx, state.Tasks.Name) != nil {
			return
		}
	}
}

func (c *Cluster) play(ctx context.Context, t *model.Task) {
	st := t.Status
	st.Task = t.ID
	switch {
	case t.Stop:
		st.State = model.TaskKilled
	case c.Behave != nil:
		c.Behave(t, &st)
	case st.State != model.TaskRunning:
		Run(&st)
	}
	if st == t.Status {
		return
	}
	st.Seq, st.At = t.Status.Seq+1, time.Now()
	_, _ = c.Propose(ctx, &command.Observe{Node: t.Node, Statuses: []model.TaskStatus{st}})
}

// Run makes a status that of a healthy task.
func Run(st *model.TaskStatus) {
	yes := true
	st.State, st.Healthy, st.StartedAt, st.ReadyAt, st.IP = model.TaskRunning, &yes, time.Now(), time.Now(), "10.0.0.2"
}

// Start runs f until the test ends and waits for it then.
func Start(t testing.TB, f func(ctx context.Context)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); f(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}

// Eventually fails the test unless ok holds on the state within 10 s.
func (c *Cluster) Eventually(t testing.TB, what string, ok func(*state.Snapshot) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for {
		snap := c.Store.Snapshot()
		if ok(snap) {
			return
		}
		if snap.Wait(ctx) != nil {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// Ready counts the ready tasks of an app by node.
func Ready(s *state.Snapshot, app string) map[string]int {
	out := map[string]int{}
	for t := range state.Tasks.By(s, "app", app) {
		if t.Ready(false) {
			out[t.Node]++
		}
	}
	return out
}

// Sum adds up the counts.
func Sum(counts map[string]int) int {
	n := 0
	for c := range maps.Values(counts) {
		n += c
	}
	return n
}

// Ended reports whether a deployment has ended in the state.
func Ended(s *state.Snapshot, id string, want model.DeploymentState) bool {
	d := state.Deployments.Get(s, id)
	return d != nil && d.State == want
}
