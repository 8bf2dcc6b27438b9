package command

import (
	"testing"
	"time"

	"appliance/node/model"
	"appliance/raft/state"
)

// commit applies commands as entries of their own and fails on a refusal.
func commit(t *testing.T, s *state.Store, commands ...Command) {
	t.Helper()
	for _, c := range commands {
		tx := s.Begin()
		index := tx.Index() + 1
		res, err := ApplyCommand(tx, index, c)
		if err == nil && res.Err != nil {
			err = res.Err
		}
		if err != nil {
			t.Fatalf("%T: %v", c, err)
		}
		tx.Commit(index)
	}
}

func deployed(t *testing.T, instances ...int) *state.Store {
	t.Helper()
	s := state.New()
	commit(t, s, &PutEnvironment{Environment: model.Environment{Name: "test"}})
	for i, n := range instances {
		commit(t, s, &CreateRelease{
			Release: model.Release{App: "/test/a", Spec: model.AppSpec{ID: "/test/a", Image: "a"}}, Instances: n,
			Deployment: model.Deployment{ID: string(rune('a' + i)), Kind: "deploy"},
		})
	}
	return s
}

func TestDeploymentRemembersSizeBefore(t *testing.T) {
	s := deployed(t, 3, 5)
	snap := s.Snapshot()
	if d := state.Deployments.Get(snap, "a"); d.FromInstances != 0 || d.Instances != 3 {
		t.Errorf("first deployment: %+v", d)
	}
	if d := state.Deployments.Get(snap, "b"); d.FromInstances != 3 || d.Instances != 5 {
		t.Errorf("second deployment: %+v", d)
	}
}

// Who scales a bad release to 0 still has the good one to go back to; clusters of the first level keep to what
// their masters have always done.
func TestReleaseThatNeverRanIsNotStable(t *testing.T) {
	for level, want := range map[int]uint64{1: 2, levelStableRan: 1} {
		s := deployed(t, 3)
		commit(t, s, &InitCluster{Cluster: model.Cluster{ID: "c", Level: level}}, &EndDeployment{ID: "a", State: model.DeploymentSucceeded},
			&CreateRelease{Release: model.Release{App: "/test/a", Spec: model.AppSpec{ID: "/test/a", Image: "bad"}}, Instances: 0,
				Deployment: model.Deployment{ID: "b", Kind: "deploy"}},
			&EndDeployment{ID: "b", State: model.DeploymentSucceeded})
		if a := state.Apps.Get(s.Snapshot(), "/test/a"); a.Stable != want || a.Release != 2 || a.Deployment != "" {
			t.Errorf("level %d: %+v, want release %d stable", level, a, want)
		}
	}
}

func TestSetBackoffCountsForward(t *testing.T) {
	s := deployed(t, 1)
	at := time.Unix(100, 0)
	commit(t, s, &SetBackoff{App: "/test/a", Failures: 2, RetryAt: at, Index: 7}, &SetBackoff{App: "/test/a"})
	app := func() *model.App { return state.Apps.Get(s.Snapshot(), "/test/a") }
	if a := app(); a.Failures != 0 || !a.RetryAt.IsZero() || a.FailuresIndex != 7 {
		t.Errorf("after a reset the counted index must stay: %+v", a)
	}
	commit(t, s, &SetBackoff{App: "/test/a", Failures: 3, RetryAt: at},
		&EndDeployment{ID: "a", State: model.DeploymentFailed, Next: &model.Deployment{ID: "b", Kind: "revert", To: 1, Instances: 1}})
	if a := app(); a.Failures != 0 || !a.RetryAt.IsZero() || a.FailuresIndex != a.ModifyIndex {
		t.Errorf("a new wish must start without a past: %+v", a)
	}
}

func TestAckStatusBySequence(t *testing.T) {
	s := deployed(t, 1)
	commit(t, s,
		&RegisterNode{Node: model.Node{ID: "n", Name: "n", Role: model.RoleAgent, Status: model.NodeReady}},
		&LaunchTasks{Tasks: []model.Task{{ID: "x", Node: "n", Framework: "f"}}},
		&Observe{Node: "n", Statuses: []model.TaskStatus{{Task: "x", State: model.TaskRunning, Seq: 3, UUID: "agent's"}}})
	acked := func() string { return state.Tasks.Get(s.Snapshot(), "x").Acked }
	commit(t, s, &AckStatus{Task: "x", UUID: "old", Seq: 2})
	if acked() != "" {
		t.Fatal("an acknowledgement of an older status was taken")
	}
	commit(t, s, &AckStatus{Task: "x", UUID: "u3", Seq: 3})
	if acked() != "u3" {
		t.Fatalf("acked %q, want u3", acked())
	}
	commit(t, s, &AckStatus{Task: "x", UUID: "agent's"})
	if acked() != "agent's" {
		t.Fatalf("acked %q by UUID", acked())
	}
}
