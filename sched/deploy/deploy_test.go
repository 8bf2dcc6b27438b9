package deploy

import (
	"strings"
	"testing"
	"time"

	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
)

func TestFirstDeploymentSucceeds(t *testing.T) {
	w := newWorld(t, 2)
	id := w.deploy(model.AppSpec{}, 3)
	w.converge(all)
	if d := w.deployment(id); d.State != model.DeploymentSucceeded {
		t.Errorf("deployment is %s: %s", d.State, d.Why)
	}
	if s := w.count(); s.ready != 3 || s.live != 3 {
		t.Errorf("%d ready, %d live", s.ready, s.live)
	}
}

func TestRollingKeepsCapacity(t *testing.T) {
	for _, c := range []struct {
		name   string
		policy model.UpgradePolicy
		n      int
	}{
		{"default", model.UpgradePolicy{}, 3},
		{"one more at a time", model.UpgradePolicy{MinHealth: 1}, 4},
		{"half", model.UpgradePolicy{MinHealth: 0.5}, 5},
		{"in place", model.UpgradePolicy{MinHealth: 0.7, MaxOver: 0.1}, 10},
		{"recreate", model.UpgradePolicy{MaxOver: 1e-9}, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, 3)
			w.deploy(model.AppSpec{Upgrade: c.policy}, c.n)
			w.converge(all)
			id := w.deploy(model.AppSpec{Upgrade: c.policy}, c.n)
			w.converge(all) // world verifies the bounds at every command
			if d := w.deployment(id); d.State != model.DeploymentSucceeded {
				t.Errorf("deployment is %s: %s", d.State, d.Why)
			}
			if a := w.input().App; a.Stable != 2 {
				t.Errorf("stable release is %d", a.Stable)
			}
		})
	}
}

func TestBadReleaseGoesBackEarly(t *testing.T) {
	w := newWorld(t, 2)
	w.deploy(model.AppSpec{}, 3)
	w.converge(all)
	start := w.now
	id := w.deploy(model.AppSpec{}, 5)
	w.converge(onlyRelease(1))
	d := w.deployment(id)
	if d.State != model.DeploymentReverted || !strings.Contains(d.Why, "exit code 1") {
		t.Errorf("deployment is %s: %s", d.State, d.Why)
	}
	if w.now.Sub(start) > 10*time.Second {
		t.Errorf("it took %s", w.now.Sub(start))
	}
	a := w.input().App
	if a.Release != 1 || a.Instances != 3 || w.count().ready != 3 {
		t.Errorf("app after the way back: %+v", a)
	}
	for r := range state.Deployments.By(w.store.Snapshot(), "app", app) {
		if r.Kind == "revert" && (r.Reverts != id || r.State != model.DeploymentSucceeded) {
			t.Errorf("way back: %+v", r)
		}
	}
}

func TestSickReleaseGoesBackEarly(t *testing.T) {
	w := newWorld(t, 2)
	spec := model.AppSpec{Checks: []model.Check{{Type: "http"}}}
	w.deploy(spec, 3)
	w.converge(all)
	id := w.deploy(spec, 3)
	w.settle()
	w.place()
	for _, task := range w.count().target {
		w.observe(task, func(st *model.TaskStatus) {
			no := false
			st.State, st.StartedAt, st.Healthy, st.Message = model.TaskRunning, w.now, &no, "answers 500"
		})
	}
	w.settle()
	if d := w.deployment(id); d.State != model.DeploymentReverted || !strings.Contains(d.Why, "answers 500") {
		t.Errorf("deployment is %s: %s", d.State, d.Why)
	}
	w.converge(all)
}

func TestOneHiccupIsForgiven(t *testing.T) {
	w := newWorld(t, 2)
	w.deploy(model.AppSpec{}, 3)
	w.converge(all)
	id := w.deploy(model.AppSpec{}, 3)
	w.settle()
	w.place()
	w.agents(func(*model.Task) bool { return false })
	w.converge(all)
	if d := w.deployment(id); d.State != model.DeploymentSucceeded {
		t.Errorf("deployment is %s: %s", d.State, d.Why)
	}
}

func TestSilentReleaseEndsAtDeadline(t *testing.T) {
	w := newWorld(t, 2)
	w.deploy(model.AppSpec{}, 2)
	w.converge(all)
	id := w.deploy(model.AppSpec{Upgrade: model.UpgradePolicy{Deadline: model.Duration(time.Minute)}}, 2)
	w.settle()
	if want := w.now.Add(time.Minute); !w.next.Equal(want) {
		t.Fatalf("looks again at %s, want %s", w.next, want)
	}
	w.now = w.now.Add(time.Minute)
	w.settle()
	if d := w.deployment(id); d.State != model.DeploymentReverted {
		t.Errorf("deployment is %s", d.State)
	}
	w.converge(all)
	if s := w.count(); s.serving != 2 || s.App.Release != 1 {
		t.Errorf("%d serve release %d", s.serving, s.App.Release)
	}
}

// A leader whose clock is hours ahead finds every deployment late when it takes office.
func TestLeaderWithAnotherClockRevertsNothingAtOnce(t *testing.T) {
	w := newWorld(t, 2)
	w.deploy(model.AppSpec{}, 2)
	w.converge(all)
	id := w.deploy(model.AppSpec{}, 2)
	w.now = w.now.Add(3 * time.Hour)
	w.since = w.now
	w.settle()
	if d := w.deployment(id); d.State != model.DeploymentRunning || !w.next.Equal(w.since.Add(officeTime)) {
		t.Errorf("the deployment is %s, the next look is at %s", d.State, w.next)
	}
	w.now = w.since.Add(officeTime)
	w.settle()
	if d := w.deployment(id); d.State != model.DeploymentReverted {
		t.Errorf("the deployment is %s", d.State)
	}
}

func TestFirstReleaseHasNoWayBack(t *testing.T) {
	w := newWorld(t, 1)
	id := w.deploy(model.AppSpec{}, 2)
	for range 20 {
		w.settle()
		w.place()
		w.agents(func(*model.Task) bool { return false })
		w.now = w.now.Add(time.Second)
	}
	w.settle()
	if d := w.deployment(id); d.State != model.DeploymentFailed {
		t.Errorf("deployment is %s", d.State)
	}
	if a := w.input().App; a.Release != 1 || !a.RetryAt.After(w.now.Add(-time.Minute)) || a.Failures < fewestFailures {
		t.Errorf("app %+v", a)
	}
}

func TestNewerDeploymentSupersedes(t *testing.T) {
	w := newWorld(t, 2)
	w.deploy(model.AppSpec{}, 3)
	w.converge(all)
	second := w.deploy(model.AppSpec{}, 3)
	w.settle()
	third := w.deploy(model.AppSpec{}, 3)
	w.converge(all)
	if d := w.deployment(second); d.State != model.DeploymentSuperseded {
		t.Errorf("second is %s", d.State)
	}
	if d := w.deployment(third); d.State != model.DeploymentSucceeded {
		t.Errorf("third is %s", d.State)
	}
}

func TestScaleKeepsSpread(t *testing.T) {
	w := newWorld(t, 3)
	w.deploy(model.AppSpec{}, 9)
	w.converge(all)
	w.scale(4)
	w.converge(all)
	perNode := map[string]int{}
	for _, task := range w.count().target {
		perNode[task.Node]++
	}
	for _, n := range w.nodes {
		if perNode[n] < 1 || perNode[n] > 2 {
			t.Errorf("tasks per node: %v", perNode)
		}
	}
	w.scale(0)
	w.converge(all)
	if s := w.count(); s.live != 0 {
		t.Errorf("%d live after scaling to 0", s.live)
	}
}

func TestScaleDownStopsIdleTasksFirst(t *testing.T) {
	w := newWorld(t, 1)
	w.deploy(model.AppSpec{}, 2)
	w.converge(all)
	w.scale(4)
	w.settle() // two new ones do not run yet
	w.scale(2)
	w.settle()
	if s := w.count(); s.ready != 2 {
		t.Errorf("%d of the running tasks are left", s.ready)
	}
}

func TestDrainReplacesBeforeStopping(t *testing.T) {
	w := newWorld(t, 2)
	w.deploy(model.AppSpec{}, 4)
	w.converge(all)
	w.apply(&command.SetNodeDrain{Node: "n0", Drain: true, At: w.now})
	w.settle()
	if s := w.count(); s.serving != 4 {
		t.Fatalf("%d serve while replacements start", s.serving)
	}
	w.converge(all)
	for range 5 {
		w.agents(all)
		w.settle()
	}
	for _, task := range w.input().Tasks {
		if task.Live() && task.Node == "n0" {
			t.Errorf("task %s is still on the drained node", task.ID)
		}
	}
}

func TestLostTasksAreReplacedAtOnce(t *testing.T) {
	w := newWorld(t, 2)
	w.deploy(model.AppSpec{}, 4)
	w.converge(all)
	w.apply(&command.SetNodeStatus{Node: "n1", Status: model.NodeDown, At: w.now})
	w.settle()
	s := w.count()
	if s.live != 4 || s.App.Failures != 0 || s.App.RetryAt.After(w.now) {
		t.Errorf("%d live, %+v", s.live, s.App)
	}
}

func TestBackoffGrowsAndIsForgotten(t *testing.T) {
	w := newWorld(t, 1)
	w.deploy(model.AppSpec{}, 1)
	w.converge(all)
	var delays []time.Duration
	for range 4 {
		for _, task := range w.count().target {
			w.observe(task, failed)
		}
		w.settle()
		a := w.input().App
		delays = append(delays, a.RetryAt.Sub(w.now))
		w.now = a.RetryAt
		w.place()
		w.agents(all)
	}
	for i, want := range []time.Duration{1, 2, 4, 8} {
		if delays[i] != want*time.Second {
			t.Errorf("delays %v", delays)
			break
		}
	}
	w.settle()
	w.now = w.now.Add(quickRun)
	w.settle()
	if a := w.input().App; a.Failures != 0 {
		t.Errorf("after a quiet minute: %+v", a)
	}
	for _, task := range w.count().target {
		w.observe(task, failed)
	}
	w.settle()
	if a := w.input().App; a.RetryAt.After(w.now) {
		t.Errorf("a task that ran long must be replaced at once: %+v", a)
	}
}

func TestUnhealthyOldReleaseGivesWay(t *testing.T) {
	w := newWorld(t, 2)
	spec := model.AppSpec{Checks: []model.Check{{Type: "tcp"}}, Upgrade: model.UpgradePolicy{MinHealth: 1}}
	w.deploy(spec, 2)
	w.converge(all)
	for _, task := range w.count().target {
		w.observe(task, func(st *model.TaskStatus) { no := false; st.Healthy = &no })
	}
	id := w.deploy(spec, 2)
	w.converge(all)
	if d := w.deployment(id); d.State != model.DeploymentSucceeded {
		t.Errorf("deployment is %s: %s", d.State, d.Why)
	}
}

func TestTaskID(t *testing.T) {
	if id := TaskID("/test/shop/cart", "x1"); id != "test_shop_cart.x1" {
		t.Error(id)
	}
}
