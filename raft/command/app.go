package command

import (
	"fmt"
	"time"

	"appliance/node/model"
	"appliance/raft/state"
)

// MaxReleases is how many releases of an app are kept for rollback.
const MaxReleases = 20

// maxDeployments is how many ended deployments of an app are kept.
const maxDeployments = 20

// CreateRelease accepts a deploy: a new release of an app, the wish to run it,
// and the deployment that leads there. A deployment that still runs is
// superseded. The version is the app's next one and is given back.
type CreateRelease struct {
	Release    model.Release    `json:"release"` // Version 0
	Instances  int              `json:"instances"`
	Deployment model.Deployment `json:"deployment"` // From, To and State are filled in
	// IfModified refuses the deploy if the app has changed since, 0 does not
	// look; MustNotExist refuses it if there is such an app.
	IfModified   uint64 `json:"ifModified,omitempty"`
	MustNotExist bool   `json:"mustNotExist,omitempty"`
}

// Released is the result of CreateRelease and ScaleApp.
type Released struct {
	App        string `json:"app"`
	Version    uint64 `json:"version"`
	Deployment string `json:"deployment"`
}

func (c *CreateRelease) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	s, id := &tx.Snapshot, c.Release.App
	env, _ := model.SplitAppID(id)
	if refusal := environmentExists(s, env); refusal != nil {
		return nil, refusal
	}
	if refusal := secretsExist(s, env, &c.Release.Spec); refusal != nil {
		return nil, refusal
	}
	old := state.Apps.Get(s, id)
	if old != nil && c.MustNotExist {
		return nil, model.Errorf(model.CodeConflict, "An app with id [%s] already exists.", id)
	}
	if c.IfModified != 0 && (old == nil || old.ModifyIndex != c.IfModified) {
		return nil, model.Errorf(model.CodeConflict, "app %s was changed by somebody else", id).Try("look at it and deploy again")
	}
	app := model.App{ID: id, Env: env}
	if old != nil {
		app = *old
	}
	rel := c.Release
	rel.Version = nextVersion(s, id)
	state.Releases.Put(tx, index, &rel)
	trimReleases(tx, index, id, app.Stable, app.Release)
	dep := c.Deployment
	dep.From, dep.To = app.Release, rel.Version
	start(tx, index, &app, dep, c.Instances)
	return Released{App: id, Version: rel.Version, Deployment: dep.ID}, nil
}

func environmentExists(s *state.Snapshot, env string) *model.Error {
	if state.Environments.Get(s, env) != nil {
		return nil
	}
	known := ""
	for e := range state.Environments.All(s) {
		known += " " + e.Name
	}
	return model.Errorf(model.CodeNotFound, "there is no environment %q", env).Because("known are:%s", known).
		Try("choose one of them, or make it with: appliance env create %s", env)
}

// nextVersion is one more than the newest release.
func nextVersion(s *state.Snapshot, app string) uint64 {
	var v uint64
	for r := range state.Releases.By(s, "app", app) {
		v = max(v, r.Version)
	}
	return v + 1
}

// start makes dep the app's running deployment.
func start(tx *state.Tx, index uint64, app *model.App, dep model.Deployment, instances int) {
	supersede(tx, index, app, dep.StartedAt)
	dep.App, dep.Instances, dep.State = app.ID, instances, model.DeploymentRunning
	dep.FromInstances = app.Instances
	app.Release, app.Instances, app.Deployment = dep.To, instances, dep.ID
	app.UpdatedAt = dep.StartedAt
	app.Failures, app.RetryAt, app.FailuresIndex = 0, time.Time{}, index // a new wish starts without a past
	if dep.Kind == "scale" {
		app.ScaledAt = dep.StartedAt
	}
	state.Apps.Put(tx, index, app)
	state.Deployments.Put(tx, index, &dep)
	trimDeployments(tx, index, app.ID)
	record(tx, index, dep.StartedAt, "deployment", dep.ID,
		fmt.Sprintf("%s of %s to release %d with %d instances", dep.Kind, app.ID, dep.To, instances),
		map[string]string{"app": app.ID})
}

func supersede(tx *state.Tx, index uint64, app *model.App, at time.Time) {
	old := state.Deployments.Get(&tx.Snapshot, app.Deployment)
	if old == nil || old.State != model.DeploymentRunning {
		return
	}
	d := *old
	d.State, d.EndedAt, d.Why = model.DeploymentSuperseded, at, "a newer deployment took its place"
	state.Deployments.Put(tx, index, &d)
}

func trimReleases(tx *state.Tx, index uint64, app string, keep ...uint64) {
	rows := collect(state.Releases.By(&tx.Snapshot, "app", app))
	used := map[uint64]bool{}
	for _, v := range keep {
		used[v] = true
	}
	for t := range state.Tasks.By(&tx.Snapshot, "app", app) {
		used[t.Release] = true
	}
	for i := 0; i < len(rows)-MaxReleases; i++ {
		if !used[rows[i].Version] {
			state.Releases.Delete(tx, index, rows[i].Key())
		}
	}
}

func trimDeployments(tx *state.Tx, index uint64, app string) {
	rows := collect(state.Deployments.By(&tx.Snapshot, "app", app))
	for len(rows) > maxDeployments {
		oldest := -1
		for i, d := range rows {
			if d.State != model.DeploymentRunning && (oldest < 0 || d.CreateIndex < rows[oldest].CreateIndex) {
				oldest = i
			}
		}
		if oldest < 0 {
			return
		}
		state.Deployments.Delete(tx, index, rows[oldest].ID)
		rows = append(rows[:oldest], rows[oldest+1:]...)
	}
}

// ScaleApp changes the number of instances, or moves the app to another known
// release (rollback), by a deployment.
type ScaleApp struct {
	App        string           `json:"app"`
	Instances  int              `json:"instances"`
	Release    uint64           `json:"release,omitempty"` // 0: the present one
	Deployment model.Deployment `json:"deployment"`
}

func (c *ScaleApp) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	old := state.Apps.Get(&tx.Snapshot, c.App)
	if old == nil {
		return nil, unknownApp(c.App)
	}
	app := *old
	dep := c.Deployment
	dep.From, dep.To = app.Release, app.Release
	if c.Release != 0 {
		if state.Releases.Get(&tx.Snapshot, model.ReleaseKey(c.App, c.Release)) == nil {
			return nil, model.Errorf(model.CodeNotFound, "app %s has no release %d", c.App, c.Release).Try("list them with: appliance apps %s", c.App)
		}
		dep.To = c.Release
	}
	start(tx, index, &app, dep, c.Instances)
	return Released{App: c.App, Version: dep.To, Deployment: dep.ID}, nil
}

func unknownApp(id string) *model.Error {
	return model.Errorf(model.CodeNotFound, "App '%s' does not exist", id)
}

// DeleteApp forgets an app and stops its tasks.
type DeleteApp struct {
	App string    `json:"app"`
	At  time.Time `json:"at"`
}

func (c *DeleteApp) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	old := state.Apps.Get(&tx.Snapshot, c.App)
	if old == nil {
		return nil, unknownApp(c.App)
	}
	supersede(tx, index, old, c.At)
	for _, t := range collect(state.Tasks.By(&tx.Snapshot, "app", c.App)) {
		stopTask(tx, index, t, "app was deleted", c.At)
	}
	state.Apps.Delete(tx, index, c.App)
	state.Waiting.Delete(tx, index, c.App)
	forgetReleases(tx, index, c.App)
	record(tx, index, c.At, "app", c.App, "was deleted", nil)
	return nil, nil
}

// forgetReleases drops the releases of a deleted app that no task needs any
// more: an agent still reads the grace period of a task that it stops.
func forgetReleases(tx *state.Tx, index uint64, app string) {
	if state.Apps.Get(&tx.Snapshot, app) != nil {
		return
	}
	used := map[uint64]bool{}
	for t := range state.Tasks.By(&tx.Snapshot, "app", app) {
		used[t.Release] = true
	}
	for _, r := range collect(state.Releases.By(&tx.Snapshot, "app", app)) {
		if !used[r.Version] {
			state.Releases.Delete(tx, index, r.Key())
		}
	}
}

// levelStableRan is the protocol level from which a deployment of no instances leaves the stable release as
// it is: its own has proved nothing.
const levelStableRan = 2

// EndDeployment closes a running deployment. Next, if given, starts in the
// same entry: the way back to the last good release.
type EndDeployment struct {
	ID      string                `json:"id"`
	State   model.DeploymentState `json:"state"`
	Why     string                `json:"why,omitempty"`
	At      time.Time             `json:"at"`
	Receipt *model.Receipt        `json:"receipt,omitempty"`
	Next    *model.Deployment     `json:"next,omitempty"` // To and Instances are given
}

func (c *EndDeployment) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	old := state.Deployments.Get(&tx.Snapshot, c.ID)
	if old == nil {
		return nil, model.Errorf(model.CodeNotFound, "DeploymentPlan %s does not exist", c.ID)
	}
	if old.State != model.DeploymentRunning {
		return nil, model.Errorf(model.CodeConflict, "deployment %s has ended", c.ID).Because("it is %s", old.State)
	}
	d := *old
	d.State, d.Why, d.EndedAt, d.Receipt = c.State, c.Why, c.At, c.Receipt
	state.Deployments.Put(tx, index, &d)
	record(tx, index, c.At, "deployment", d.ID, "of "+d.App+" "+string(d.State)+suffix(c.Why), map[string]string{"app": d.App})
	prev := state.Apps.Get(&tx.Snapshot, d.App)
	if prev == nil || prev.Deployment != c.ID {
		return nil, nil
	}
	app := *prev
	app.Deployment = ""
	ran := d.Instances > 0 || ClusterLevel(&tx.Snapshot) < levelStableRan
	if c.State == model.DeploymentSucceeded && ran {
		app.Stable = d.To
	}
	if c.Next != nil {
		next := *c.Next
		next.From = d.To
		start(tx, index, &app, next, next.Instances)
		return nil, nil
	}
	state.Apps.Put(tx, index, &app)
	return nil, nil
}

func suffix(why string) string {
	if why == "" {
		return ""
	}
	return ": " + why
}

// SetBackoff delays the next try to start tasks of an app that keeps failing.
type SetBackoff struct {
	App      string    `json:"app"`
	Failures int       `json:"failures"`
	RetryAt  time.Time `json:"retryAt"`
	// Index is the entry up to which failures are counted; 0 leaves it.
	Index uint64 `json:"index,omitempty"`
}

func (c *SetBackoff) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	old := state.Apps.Get(&tx.Snapshot, c.App)
	if old == nil {
		return nil, unknownApp(c.App)
	}
	app := *old
	app.Failures, app.RetryAt = c.Failures, c.RetryAt
	app.FailuresIndex = max(app.FailuresIndex, c.Index)
	state.Apps.Put(tx, index, &app)
	return nil, nil
}
