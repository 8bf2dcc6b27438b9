package sim

import (
	"context"
	"fmt"
	"time"

	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
)

// apps of the workload; all of their instances fit twice on two of three agents.
var apps = []string{"/test/a", "/test/b"}

const (
	maxInstances = 3
	framework    = "f" // whose tasks compete with the apps for room and ports
)

// setUp commits what tasks need: environment, nodes, apps with a release that works.
func setUp(ctx context.Context, c *cluster) error {
	p := c.machines[0].running()
	commands := []command.Command{
		&command.InitCluster{Cluster: model.Cluster{ID: "sim", Name: "sim", Level: command.Speaks}},
		&command.PutEnvironment{Environment: model.Environment{Name: "test"}},
		&command.PutFramework{Framework: model.Framework{ID: framework, Name: "f", Roles: []string{"*"}}},
	}
	for _, m := range c.machines {
		now := m.clock.now()
		commands = append(commands, &command.RegisterNode{Node: m.node(now), At: now})
	}
	for _, app := range apps {
		commands = append(commands, release(app, goodImage, 2, c.newID(), p.machine.clock.now()))
	}
	for _, cmd := range commands {
		if res, err := propose(ctx, p.core, cmd); err != nil || res.Err != nil {
			return fmt.Errorf("set up %T: %w %v", cmd, err, res.Err)
		}
	}
	if why := c.converge(ctx); why != "" {
		return fmt.Errorf("set up: %s", why)
	}
	return nil
}

func release(app, image string, instances int, id string, now time.Time) *command.CreateRelease {
	spec := model.AppSpec{
		ID: app, Image: image, Instances: instances, Resources: model.Resources{CPUs: 0.5, Memory: 64},
		Ports: []model.Port{{ContainerPort: 80}}, KillGrace: model.Duration(2 * time.Second),
		Checks: []model.Check{{Type: "command", Command: []string{"healthy"}}},
	}
	return &command.CreateRelease{
		Release:   model.Release{App: app, Spec: spec, CreatedAt: now},
		Instances: instances, Deployment: model.Deployment{ID: id, Kind: "deploy", StartedAt: now},
	}
}

// deploy makes a release, which now and then does not work.
func (c *client) deploy(ctx context.Context, p *process) {
	app, image := apps[c.rand.IntN(len(apps))], goodImage
	if c.rand.IntN(5) == 0 {
		image = badImage
	}
	cmd := release(app, image, 1+c.rand.IntN(maxInstances), "d-"+c.value(), c.now(p))
	in := releaseInput{op: "create", app: app}
	call := c.history.call()
	res, err := propose(ctx, p.core, cmd)
	var got command.Released
	switch {
	case p.dead.Load():
	case refused(err):
		c.history.refused.Add(1)
		return
	case err != nil:
	case res.Decode(&got) != nil:
		c.history.fail("deploy %s: result %s %v", app, res.Value, res.Err)
	default:
		c.history.release(c.id, in, call, releaseOutput{known: true, version: got.Version})
		return
	}
	c.history.release(c.id, in, call, releaseOutput{})
}

// version reads the newest release of an app.
func (c *client) version(ctx context.Context, p *process, app string) {
	call := c.history.call()
	if p.core.Linearize(ctx) != nil {
		return
	}
	out := releaseOutput{known: true}
	for r := range state.Releases.By(p.store.Snapshot(), "app", app) {
		out.version = max(out.version, r.Version)
	}
	if !p.dead.Load() {
		c.history.release(c.id, releaseInput{op: "read", app: app}, call, out)
	}
}

// scale also asks for no instances, which says nothing of the release.
func (c *client) scale(ctx context.Context, p *process) {
	app := apps[c.rand.IntN(len(apps))]
	d := model.Deployment{ID: "d-" + c.value(), Kind: "scale", StartedAt: c.now(p)}
	propose(ctx, p.core, &command.ScaleApp{App: app, Instances: c.rand.IntN(maxInstances + 1), Deployment: d})
}

// drain empties an agent, or takes it into use again.
func (c *client) drain(ctx context.Context, p *process) {
	m := c.cluster.agents()[c.rand.IntN(agents)]
	propose(ctx, p.core, &command.SetNodeDrain{Node: m.id, Drain: c.rand.IntN(3) == 0, At: c.now(p)})
}

// task launches one of the framework's tasks on a node of its choice, or ends one.
func (c *client) task(ctx context.Context, p *process) {
	now := c.now(p)
	if len(c.tasks) < 2 || len(c.tasks) < 4 && c.rand.IntN(2) == 0 {
		t := model.Task{
			ID: "t-" + c.value(), Framework: framework, Node: c.cluster.agents()[c.rand.IntN(agents)].id, Ports: []int{31000 + c.rand.IntN(5)},
			Resources: model.Resources{CPUs: 0.6, Memory: 40}, CreatedAt: now, PlacedAt: now,
			Foreign: &model.ForeignTask{TaskID: c.value(), Name: "t", Image: goodImage},
		}
		res, err := propose(ctx, p.core, &command.LaunchTasks{Tasks: []model.Task{t}})
		var placed command.Placed
		if err != nil || res.Decode(&placed) == nil && placed.Refused[t.ID] == "" {
			c.tasks = append(c.tasks, t.ID) // or it may be there
		}
		return
	}
	i := c.rand.IntN(len(c.tasks))
	if _, err := propose(ctx, p.core, &command.StopTasks{Tasks: c.tasks[i : i+1], Why: "enough", At: now}); err == nil {
		c.tasks = append(c.tasks[:i], c.tasks[i+1:]...)
	}
}

// makeRoom ends what could keep the apps from their target for good: tasks of the framework, drained
// nodes.
func (c *cluster) makeRoom(ctx context.Context) {
	for ctx.Err() == nil {
		p := c.any()
		snap, now := p.store.Snapshot(), p.machine.clock.now()
		stop := &command.StopTasks{Why: "enough", At: now}
		for t := range state.Tasks.By(snap, "framework", framework) {
			if t.Live() && !t.Stop {
				stop.Tasks = append(stop.Tasks, t.ID)
			}
		}
		commands := []command.Command{stop}
		for n := range state.Nodes.All(snap) {
			if n.Drain {
				commands = append(commands, &command.SetNodeDrain{Node: n.ID, At: now})
			}
		}
		if c.tell(ctx, p, commands) && len(stop.Tasks) == 0 && len(commands) == 1 {
			return
		}
		pause(ctx, 100*time.Millisecond)
	}
}

// tell commits commands and reports whether that was possible.
func (c *cluster) tell(ctx context.Context, p *process, commands []command.Command) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	batch, err := command.NewBatch(commands...)
	if err == nil {
		_, err = propose(ctx, p.core, batch)
	}
	return err == nil
}

// any returns a process that runs, once there is one.
func (c *cluster) any() *process {
	for {
		for _, m := range c.machines {
			if p := m.running(); p != nil {
				return p
			}
		}
		pause(context.Background(), 10*time.Millisecond)
	}
}

// converge waits until everything is at target and says what is not when ctx ends.
func (c *cluster) converge(ctx context.Context) (why string) {
	for {
		if why = c.offTarget(c.any().store.Snapshot()); why == "" || pause(ctx, 200*time.Millisecond) != nil {
			return why
		}
	}
}

// offTarget tells what is not as wished: in the state, or on the machines.
func (c *cluster) offTarget(snap *state.Snapshot) string {
	wished := map[string]string{} // node by task
	for app := range state.Apps.All(snap) {
		if app.Deployment != "" {
			return fmt.Sprintf("deployment %s of %s has not ended", app.Deployment, app.ID)
		}
		ready := 0
		for t := range state.Tasks.By(snap, "app", app.ID) {
			switch {
			case !t.Live():
			case t.Release != app.Release || t.Stop || !t.Ready(true):
				return fmt.Sprintf("task %s of release %d on %q is %s, release %d is wished", t.ID, t.Release, t.Node, t.Status.State, app.Release)
			default:
				ready++
				wished[t.ID] = t.Node
			}
		}
		if ready != app.Instances {
			return fmt.Sprintf("%s has %d of %d instances", app.ID, ready, app.Instances)
		}
	}
	for n := range state.Nodes.All(snap) {
		if n.Status != model.NodeReady {
			return fmt.Sprintf("node %s is %s", n.Name, n.Status)
		}
	}
	for t := range state.Tasks.By(snap, "framework", framework) {
		if t.Live() {
			return fmt.Sprintf("task %s has not ended", t.ID)
		}
	}
	for _, m := range c.agents() {
		for id := range m.containers() {
			if wished[id] != m.id {
				return fmt.Sprintf("%s runs %s, which nobody wishes there", m.name, id)
			}
			delete(wished, id)
		}
	}
	for id, node := range wished {
		return fmt.Sprintf("task %s has no container on %s", id, node)
	}
	return ""
}
