// Package discoverytest builds replicated state for the tests of discovery and
// of its dialects, by the same commands that the log carries but without one.
package discoverytest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
)

// Start is the time of the first command of a Cluster.
var Start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// Cluster is a state and a proposer that applies commands at once. Safe for
// concurrent use.
type Cluster struct {
	Store *state.Store

	mu    sync.Mutex
	index uint64
	seq   uint64
}

// New returns an empty cluster with the environments test and production.
func New() *Cluster {
	c := &Cluster{Store: state.New(), index: 10}
	for _, env := range []string{"test", "production"} {
		c.Must(&command.PutEnvironment{Environment: model.Environment{Name: env, Selector: map[string]string{"env": env}}})
	}
	return c
}

// Propose implements command.Proposer. The command goes through its encoding,
// as it would through the log.
func (c *Cluster) Propose(ctx context.Context, cmd command.Command) (command.Result, error) {
	if err := ctx.Err(); err != nil {
		return command.Result{}, err
	}
	raw, err := command.Encode(cmd)
	if err != nil {
		return command.Result{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.index++
	tx := c.Store.Begin()
	res, err := command.Apply(tx, c.index, raw)
	if err != nil {
		tx.Abort()
		return res, err
	}
	tx.Commit(c.index)
	return res, nil
}

// ReadIndex is the index that a linearizable read must wait for.
func (c *Cluster) ReadIndex(context.Context) (uint64, error) { return c.Store.Index(), nil }

// Must applies commands that cannot be refused.
func (c *Cluster) Must(cmds ...command.Command) {
	for _, cmd := range cmds {
		if _, err := command.Do(context.Background(), c, cmd); err != nil {
			panic(fmt.Sprintf("%T: %v", cmd, err))
		}
	}
}

// Node adds a node whose id is "id-" and its name.
func (c *Cluster) Node(name, addr string, role model.Role) {
	c.Must(&command.RegisterNode{At: Start, Node: model.Node{
		ID: "id-" + name, Name: name, Role: role, Addr: addr, Status: model.NodeReady, JoinedAt: Start,
		Capacity: model.Resources{CPUs: 64, Memory: 1 << 20}, PortRange: [2]int{31000, 32000},
		Attributes: map[string]string{"env": "test"},
	}})
}

// Status declares the status of a node.
func (c *Cluster) Status(name string, s model.NodeStatus) {
	c.Must(&command.SetNodeStatus{Node: "id-" + name, Status: s, At: Start})
}

// Deploy makes a release of an app.
func (c *Cluster) Deploy(spec model.AppSpec) {
	c.Must(&command.CreateRelease{
		Release: model.Release{App: spec.ID, Spec: spec, CreatedAt: Start}, Instances: spec.Instances,
		Deployment: model.Deployment{ID: fmt.Sprintf("d-%d", c.Store.Index()), Kind: "deploy", StartedAt: Start},
	})
}

// Task places a task of the app's current release on a node.
func (c *Cluster) Task(id, app, node string, ports ...int) {
	row := state.Apps.Get(c.Store.Snapshot(), app)
	c.Must(
		&command.CreateTasks{Tasks: []model.Task{{ID: id, App: app, Env: row.Env, Release: row.Release, CreatedAt: Start}}},
		&command.Place{Placements: []model.Placement{{Task: id, Node: "id-" + node, Ports: ports, At: Start}}},
	)
}

// Observe reports a task; healthy may be nil.
func (c *Cluster) Observe(id string, s model.TaskState, healthy *bool) {
	t := state.Tasks.Get(c.Store.Snapshot(), id)
	c.mu.Lock()
	c.seq++
	seq := c.seq
	c.mu.Unlock()
	c.Must(&command.Observe{Node: t.Node, Statuses: []model.TaskStatus{{Task: id, State: s, Healthy: healthy, Seq: seq, At: Start}}})
}

// Run deploys nothing but places a task and reports it running.
func (c *Cluster) Run(id, app, node string, ports ...int) {
	c.Task(id, app, node, ports...)
	c.Observe(id, model.TaskRunning, nil)
}

// Stop asks for the end of a task.
func (c *Cluster) Stop(id string) {
	c.Must(&command.StopTasks{Tasks: []string{id}, Why: "scaled down", At: Start})
}

// Liveness is an opinion about nodes that tests set.
type Liveness struct {
	mu      sync.Mutex
	dead    map[string]time.Time
	changed chan struct{}
}

// NewLiveness believes that everybody is alive.
func NewLiveness() *Liveness {
	return &Liveness{dead: map[string]time.Time{}, changed: make(chan struct{})}
}

// Alive implements discovery.Liveness.
func (l *Liveness) Alive(id string) (bool, time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, dead := l.dead[id]
	return !dead, at
}

// Changed implements discovery.Liveness.
func (l *Liveness) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// Kill sets that the node with the name is believed dead since at.
func (l *Liveness) Kill(name string, at time.Time) {
	l.set(func() { l.dead["id-"+name] = at })
}

// Revive sets that the node is believed alive.
func (l *Liveness) Revive(name string) { l.set(func() { delete(l.dead, "id-"+name) }) }

func (l *Liveness) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
	close(l.changed)
	l.changed = make(chan struct{})
}
