package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"appliance/node/model"
	"appliance/raft"
	"appliance/raft/command"
	"appliance/raft/state"
)

const (
	clients = 6
	keys    = 5
	leases  = 2
	ttl     = 2 * time.Second
	appID   = "/test/a"
)

// setUp commits what tasks need: an environment, an app and two agents.
func setUp(ctx context.Context, c core) error {
	commands := []command.Command{
		&command.PutEnvironment{Environment: model.Environment{Name: "test"}},
		&command.CreateRelease{Release: model.Release{App: appID, Spec: model.AppSpec{ID: appID, Image: "a"}}, Deployment: model.Deployment{ID: "d"}},
	}
	for _, name := range []string{"s1", "s2"} {
		commands = append(commands, &command.RegisterNode{Node: model.Node{
			ID: name, Name: name, Role: model.RoleAgent, Status: model.NodeReady, Capacity: model.Resources{CPUs: 4, Memory: 1000},
		}})
	}
	for _, cmd := range commands {
		if res, err := propose(ctx, c, cmd); err != nil || res.Err != nil {
			return fmt.Errorf("set up %T: %w %v", cmd, err, res.Err)
		}
	}
	return nil
}

func propose(ctx context.Context, c core, cmd command.Command) (command.Result, error) {
	raw, err := command.Encode(cmd)
	if err != nil {
		return command.Result{}, err
	}
	_, v, err := c.Propose(ctx, raw)
	if err != nil {
		return command.Result{}, err
	}
	res, ok := v.(command.Result)
	if !ok {
		return command.Result{}, fmt.Errorf("%w: result %T: %v", raft.ErrUnknownOutcome, v, v)
	}
	return res, nil
}

// client is one user of the cluster, which asks any node.
type client struct {
	name    string
	id      int
	rand    *rand.Rand
	cluster *cluster
	history *history

	count int
	seen  map[string]model.KV  // last read or written
	until map[string]time.Time // end of the leases taken
	tasks []string             // created here and not yet over
}

func (c *client) run(ctx context.Context) {
	for ctx.Err() == nil {
		m := c.cluster.machines[c.rand.IntN(len(c.cluster.machines))]
		if p := m.running(); p != nil {
			c.step(ctx, p)
		}
		pause(ctx, time.Duration(5+c.rand.IntN(50))*time.Millisecond)
	}
}

func (c *client) step(ctx context.Context, p *process) {
	limit := 2 * time.Second
	if c.rand.IntN(4) == 0 {
		limit = time.Duration(1+c.rand.IntN(100)) * time.Millisecond // an impatient one
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	key := fmt.Sprintf("k%d", c.rand.IntN(keys))
	c.count++
	switch c.rand.IntN(11) {
	case 0, 1, 2:
		c.get(ctx, p, key)
	case 3:
		c.write(ctx, p, kvInput{op: "set", key: key, value: c.value()}, 0)
	case 4:
		c.write(ctx, p, kvInput{op: "delete", key: key}, 0)
	case 5, 6:
		row := c.seen[key]
		c.write(ctx, p, kvInput{op: "cas", key: key, expect: string(row.Value), value: c.value()}, row.ModifyIndex)
	case 7, 8:
		c.lease(ctx, p)
	default:
		c.task(ctx, p)
	}
}

// value is a new one: values tell writes apart.
func (c *client) value() string { return fmt.Sprintf("%s-%d", c.name, c.count) }

func (c *client) get(ctx context.Context, p *process, key string) {
	call := c.history.call()
	if p.core.Linearize(ctx) != nil {
		return
	}
	row := state.KVs.Get(p.store.Snapshot(), key)
	if p.dead.Load() {
		return
	}
	out := kvOutput{known: true}
	if delete(c.seen, key); row != nil {
		out.value = string(row.Value)
		c.seen[key] = *row
	}
	c.history.kv(c.id, kvInput{op: "get", key: key}, call, out)
}

func (c *client) write(ctx context.Context, p *process, in kvInput, index uint64) {
	cmd := &command.KVTxn{Ops: []command.KVOp{{Verb: in.op, Key: in.key, Value: []byte(in.value), Index: index}}}
	call := c.history.call()
	res, err := propose(ctx, p.core, cmd)
	delete(c.seen, in.key)
	var out kvOutput
	var got command.KVTxnResult
	switch {
	case p.dead.Load(): // unknown
	case errors.Is(err, raft.ErrNoLeader) && !errors.Is(err, raft.ErrUnknownOutcome):
		c.history.refused.Add(1) // it promises that nothing was changed
		return
	case err != nil:
	case res.Decode(&got) != nil:
		c.history.fail("%s %s: result %s %v", in.op, in.key, res.Value, res.Err)
	default:
		out = kvOutput{known: true, done: len(got.Errors) == 0}
		if out.done && in.op != "delete" && len(got.Results) == 1 {
			row := got.Results[0]
			row.Value = []byte(in.value)
			c.seen[in.key] = row
		}
	}
	c.history.kv(c.id, in, call, out)
}

// lease takes or gives up a lease under the client's name.
func (c *client) lease(ctx context.Context, p *process) {
	name := fmt.Sprintf("l%d", c.rand.IntN(leases))
	if c.rand.IntN(3) == 0 {
		c.history.released(name, c.name)
		propose(ctx, p.core, &command.ReleaseLease{Name: name, Holder: c.name, Expires: c.until[name]})
		return
	}
	at := time.Now()
	res, err := propose(ctx, p.core, &command.TakeLease{Name: name, Holder: c.name, At: at, TTL: ttl})
	if err == nil && res.Err == nil && !p.dead.Load() {
		var got model.Lease
		if err := res.Decode(&got); err != nil {
			c.history.fail("lease: %v", err)
		}
		c.until[name] = got.Expires
		c.history.held(name, c.name, at.Add(ttl))
	}
}

// task creates a task, asks for it to be placed on a node, or ends it.
func (c *client) task(ctx context.Context, p *process) {
	if len(c.tasks) == 0 || len(c.tasks) < 4 && c.rand.IntN(2) == 0 {
		id := "t-" + c.value()
		task := model.Task{ID: id, App: appID, Resources: model.Resources{CPUs: 1, Memory: 10}, CreatedAt: time.Now()}
		if _, err := propose(ctx, p.core, &command.CreateTasks{Tasks: []model.Task{task}}); err == nil {
			c.tasks = append(c.tasks, id)
		}
		return
	}
	id := c.tasks[c.rand.IntN(len(c.tasks))]
	t := state.Tasks.Get(p.store.Snapshot(), id) // maybe old: commands must bear that
	if t != nil && t.Node != "" && c.rand.IntN(2) == 0 {
		st := model.TaskStatus{Task: id, State: model.TaskFinished, Seq: t.Status.Seq + 1, At: time.Now()}
		if _, err := propose(ctx, p.core, &command.Observe{Node: t.Node, Statuses: []model.TaskStatus{st}}); err == nil {
			c.drop(id)
		}
		return
	}
	node := []string{"s1", "s2"}[c.rand.IntN(2)]
	place := model.Placement{Task: id, Node: node, Ports: []int{31000 + c.rand.IntN(5)}, At: time.Now()}
	res, err := propose(ctx, p.core, &command.Place{Placements: []model.Placement{place}})
	var placed command.Placed
	if err != nil || p.dead.Load() || res.Decode(&placed) != nil {
		return
	}
	if placed.Refused[id] == "" {
		c.history.owner(id, node)
	}
}

func (c *client) drop(id string) {
	for i, t := range c.tasks {
		if t == id {
			c.tasks = append(c.tasks[:i], c.tasks[i+1:]...)
			return
		}
	}
}
