package deploy

import (
	"fmt"
	"time"

	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
)

const app = "/test/web"

type fataler interface {
	Fatalf(string, ...any)
	Helper()
}

// world is a real state with a clock, fake placement and fake agents.
type world struct {
	t     fataler
	store *state.Store
	now   time.Time
	since time.Time // that the leader leads
	ids   int
	nodes []string
	next  time.Time
}

func newWorld(t fataler, nodes int) *world {
	w := &world{t: t, store: state.New(), now: time.Unix(1000000, 0)}
	w.apply(&command.PutEnvironment{Environment: model.Environment{Name: "test"}})
	for i := range nodes {
		id := fmt.Sprintf("n%d", i)
		w.nodes = append(w.nodes, id)
		w.apply(&command.RegisterNode{Node: model.Node{ID: id, Name: id, Role: model.RoleAgent, Status: model.NodeReady, Capacity: model.Resources{CPUs: 1000, Memory: 1e6}}})
	}
	return w
}

func (w *world) apply(c command.Command) {
	w.t.Helper()
	tx := w.store.Begin()
	index := tx.Index() + 1
	res, err := command.ApplyCommand(tx, index, c)
	tx.Commit(index)
	if err != nil || res.Err != nil {
		w.t.Fatalf("%T is refused: %v %v", c, err, res.Err)
	}
}

func (w *world) id() string { w.ids++; return fmt.Sprintf("id%04d", w.ids) }

func (w *world) deploy(spec model.AppSpec, n int) string {
	spec.ID, spec.Image = app, "image"
	id := w.id()
	w.apply(&command.CreateRelease{Release: model.Release{App: app, Spec: spec, CreatedAt: w.now}, Instances: n,
		Deployment: model.Deployment{ID: id, Kind: "deploy", StartedAt: w.now}})
	return id
}

func (w *world) scale(n int) string {
	id := w.id()
	w.apply(&command.ScaleApp{App: app, Instances: n, Deployment: model.Deployment{ID: id, Kind: "scale", StartedAt: w.now}})
	return id
}

// step runs Step once and commits what it says, verifying the invariants.
func (w *world) step() int {
	w.t.Helper()
	in := w.input()
	plan := Step(in)
	w.next = plan.Next
	for _, c := range plan.Commands {
		before := w.count()
		w.apply(c)
		w.verify(c, before)
	}
	return len(plan.Commands)
}

func (w *world) input() Input {
	s := w.store.Snapshot()
	a := state.Apps.Get(s, app)
	in := Input{
		App: a, Since: w.since, Now: w.now, NewID: w.id, Deployment: state.Deployments.Get(s, a.Deployment),
		Release: func(v uint64) *model.Release { return state.Releases.Get(s, model.ReleaseKey(app, v)) },
		Node:    func(id string) *model.Node { return state.Nodes.Get(s, id) },
	}
	for t := range state.Tasks.By(s, "app", app) {
		in.Tasks = append(in.Tasks, t)
	}
	return in
}

func (w *world) count() *survey {
	in := w.input()
	return look(in, &in.Release(in.App.Release).Spec)
}

// verify holds the invariants for one command.
func (w *world) verify(c command.Command, before *survey) {
	w.t.Helper()
	after := w.count()
	minHealthy, maxLive := after.bounds()
	switch c.(type) {
	case *command.StopTasks:
		if after.serving < before.serving && after.serving < minHealthy {
			w.t.Fatalf("stopped healthy tasks: %d were left of %d that must stay", after.serving, minHealthy)
		}
	case *command.CreateTasks:
		if after.live > maxLive {
			w.t.Fatalf("%d tasks live, at most %d may", after.live, maxLive)
		}
	}
}

// settle steps until nothing is left to do, placing tasks in between.
func (w *world) settle() {
	w.t.Helper()
	for range 50 {
		if w.step() == 0 {
			return
		}
		w.place()
	}
	w.t.Fatalf("Step does not come to rest")
}

// place puts every waiting task on the emptiest node, unless in backoff.
func (w *world) place() {
	s := w.store.Snapshot()
	if a := state.Apps.Get(s, app); a.RetryAt.After(w.now) {
		return
	}
	for t := range state.Tasks.By(s, "waiting", "yes") {
		best, fewest := "", 1<<30
		for n := range state.Nodes.All(s) {
			live := 0
			for o := range state.Tasks.By(w.store.Snapshot(), "node", n.ID) {
				if o.Live() {
					live++
				}
			}
			if n.Runs() && live < fewest {
				best, fewest = n.ID, live
			}
		}
		if best != "" {
			w.apply(&command.Place{Placements: []model.Placement{{Task: t.ID, Node: best, At: w.now}}})
		}
	}
}

// observe is the agent's report on one task.
func (w *world) observe(t *model.Task, change func(*model.TaskStatus)) {
	st := t.Status
	st.Task, st.Seq, st.At = t.ID, st.Seq+1, w.now
	change(&st)
	w.apply(&command.Observe{Node: t.Node, Statuses: []model.TaskStatus{st}})
}

func running(w *world) func(*model.TaskStatus) {
	return func(st *model.TaskStatus) {
		yes := true
		st.State, st.StartedAt, st.ReadyAt, st.Healthy = model.TaskRunning, w.now, w.now, &yes
	}
}

func failed(st *model.TaskStatus) { st.State, st.Message = model.TaskFailed, "exit code 1" }

// agents moves every placed task on: stopped ones end, good releases run, bad
// ones fail.
func (w *world) agents(good func(*model.Task) bool) {
	for _, t := range w.input().Tasks {
		switch {
		case !t.Live() || t.Node == "":
		case t.Stop:
			w.observe(t, func(st *model.TaskStatus) { st.State = model.TaskKilled })
		case t.Status.State == model.TaskRunning:
		case good(t):
			w.observe(t, running(w))
		default:
			w.observe(t, failed)
		}
	}
}

// converge lets time pass until the deployment has ended.
func (w *world) converge(good func(*model.Task) bool) {
	w.t.Helper()
	for range 500 {
		w.settle()
		w.place()
		w.agents(good)
		w.settle()
		in := w.input()
		if in.App.Deployment == "" && w.count().ready == in.App.Instances {
			return
		}
		w.now = w.now.Add(time.Second)
	}
	w.t.Fatalf("no rest: %+v", w.input().App)
}

func (w *world) deployment(id string) *model.Deployment {
	return state.Deployments.Get(w.store.Snapshot(), id)
}

func all(*model.Task) bool { return true }

func onlyRelease(v uint64) func(*model.Task) bool {
	return func(t *model.Task) bool { return t.Release == v }
}
