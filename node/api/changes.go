package api

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"regexp"
	"strings"
	"time"

	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
)

// SpecLabel is the image label in which `appliance build` keeps the app spec,
// so that an image can be deployed by name alone.
const SpecLabel = "io.appliance.app"

// envOf is the environment that a request names, by flag or by app path.
func envOf(app, env string) string {
	if env == "" && strings.HasPrefix(app, "/") {
		env, _ = model.SplitAppID(app)
	}
	return env
}

// appID joins name and environment; a full path stays as it is.
func appID(app, env string) (string, error) {
	if strings.HasPrefix(app, "/") {
		if e, _ := model.SplitAppID(app); env != "" && e != env {
			return "", model.Errorf(model.CodeInvalid, "app %s is not of environment %s", app, env)
		}
		return app, nil
	}
	if app == "" || env == "" {
		return "", model.Errorf(model.CodeInvalid, "an app needs a name and an environment").Try("name both, for example: notejam --env test")
	}
	return model.AppID(env, app), nil
}

func (s *Server) deploy(ctx context.Context, req *DeployRequest) (any, error) {
	id, err := appID(req.App, req.Env)
	if err != nil {
		return nil, err
	}
	if err := s.Cluster.Sync(ctx); err != nil {
		return nil, err
	}
	snap := s.Store.Snapshot()
	env, name := model.SplitAppID(id)
	template, err := s.template(ctx, snap, id, name, req)
	if err != nil {
		return nil, err
	}
	if req.Image != "" {
		template.Image = req.Image
	}
	if template.Image == "" {
		template.Image = name
	}
	instances := template.Instances
	if old := state.Apps.Get(snap, id); old != nil && req.Spec == nil {
		instances = old.Instances
	}
	if req.Instances != nil {
		instances = *req.Instances
	}
	return s.release(ctx, id, env, template, instances, "deploy", model.Release{})
}

// template finds the spec to deploy: given, the app's own, or the image's.
func (s *Server) template(ctx context.Context, snap *state.Snapshot, id, name string, req *DeployRequest) (model.AppSpec, error) {
	if req.Spec != nil {
		return *req.Spec, nil
	}
	image := req.Image
	if image == "" {
		image = name
	}
	if repo, digest, ok := Resolve(snap, image); ok {
		labels, err := s.Images.Labels(ctx, repo, digest)
		if err != nil {
			return model.AppSpec{}, err
		}
		if raw := labels[SpecLabel]; raw != "" {
			var spec model.AppSpec
			if err := json.Unmarshal([]byte(raw), &spec); err != nil {
				return spec, model.Errorf(model.CodeInvalid, "image %s carries an app spec that cannot be read", image).Because("%v", err)
			}
			spec.Image = image
			return spec, nil
		}
	}
	if a := state.Apps.Get(snap, id); a != nil {
		if rel := state.Releases.Get(snap, model.ReleaseKey(id, a.Release)); rel != nil {
			return templateOf(rel), nil
		}
	}
	if req.Image != "" {
		return model.AppSpec{Image: req.Image, Instances: 1}, nil
	}
	return model.AppSpec{}, model.Errorf(model.CodeNotFound, "there is no image %q in the registry", name).
		Because("no spec was given, and none is known for %s", id).
		Try("build and push it with: appliance build, or give a spec with -f FILE or an image with --image REF")
}

func templateOf(rel *model.Release) model.AppSpec {
	if rel.Template != nil {
		return *rel.Template
	}
	return rel.Spec
}

// defaultDeadline is how long a deployment may take without a word of the
// user: image pulls and slow starts included.
const defaultDeadline = 5 * time.Minute

func (s *Server) release(ctx context.Context, id, env string, template model.AppSpec, instances int, kind string, base model.Release) (any, error) {
	now := time.Now().UTC()
	template.ID = ""
	template.Instances = instances
	spec := template.InEnv(env)
	spec.ID = id
	rel := base
	rel.App, rel.Spec, rel.Template, rel.CreatedAt = id, spec, &template, now
	dep := newDeployment(kind, now, spec.Upgrade.Deadline.D())
	res, err := command.Do(ctx, s.Proposer, &command.CreateRelease{Release: rel, Instances: instances, Deployment: dep})
	if err != nil {
		return nil, err
	}
	return s.accepted(res)
}

func newDeployment(kind string, now time.Time, deadline time.Duration) model.Deployment {
	if deadline <= 0 {
		deadline = defaultDeadline
	}
	return model.Deployment{ID: strings.ToLower(rand.Text()[:12]), Kind: kind, StartedAt: now, Deadline: now.Add(deadline)}
}

func (s *Server) accepted(res command.Result) (any, error) {
	var r command.Released
	if err := res.Decode(&r); err != nil {
		return nil, err
	}
	out := Accepted{App: r.App, Release: r.Version, Deployment: r.Deployment}
	if rel := state.Releases.Get(s.Store.Snapshot(), model.ReleaseKey(r.App, r.Version)); rel != nil {
		out.Digest = rel.Digest
	}
	return out, nil
}

func (s *Server) promote(ctx context.Context, req *PromoteRequest) (any, error) {
	name := req.App
	if strings.HasPrefix(name, "/") {
		_, name = model.SplitAppID(name)
	}
	if req.From == "" || req.To == "" || req.From == req.To {
		return nil, model.Errorf(model.CodeInvalid, "a promotion needs two different environments").
			Try("for example: appliance promote notejam --from test --to production")
	}
	if err := s.Cluster.Sync(ctx); err != nil {
		return nil, err
	}
	snap := s.Store.Snapshot()
	from := model.AppID(req.From, name)
	a := state.Apps.Get(snap, from)
	if a == nil {
		return nil, unknownApp(snap, from)
	}
	if a.Stable == 0 {
		return nil, model.Errorf(model.CodeConflict, "%s has no release that has proved itself", from).
			Because("no deployment of it has succeeded with an instance").Try("wait for it, or scale it up: appliance status")
	}
	rel := state.Releases.Get(snap, model.ReleaseKey(from, a.Stable))
	if rel == nil {
		return nil, model.Errorf(model.CodeInternal, "release %d of %s is gone", a.Stable, from)
	}
	if err := receiptFor(snap, req.To, from, a.Stable); err != nil {
		return nil, err
	}
	to := model.AppID(req.To, name)
	instances := a.Instances
	if old := state.Apps.Get(snap, to); old != nil {
		instances = old.Instances
	}
	if req.Instances != nil {
		instances = *req.Instances
	}
	return s.release(ctx, to, req.To, templateOf(rel), instances, "promote",
		model.Release{Digest: rel.Digest, From: model.ReleaseKey(from, rel.Version)})
}

// receiptFor enforces the target's policy: a passing receipt of the source.
func receiptFor(snap *state.Snapshot, env, app string, version uint64) error {
	e := state.Environments.Get(snap, env)
	if e == nil || !e.RequireReceipt {
		return nil
	}
	for d := range state.Deployments.By(snap, "app", app) {
		if d.To == version && d.Receipt != nil && d.Receipt.Passed {
			return nil
		}
	}
	return model.Errorf(model.CodeDenied, "environment %s wants a passing receipt", env).
		Because("release %d of %s has none", version, app).Try("deploy it again under traffic")
}

func (s *Server) scale(ctx context.Context, req *ScaleRequest) (any, error) {
	id, err := appID(req.App, req.Env)
	if err != nil {
		return nil, err
	}
	return s.move(ctx, id, "scale", func(*state.Snapshot, *model.App) (int, uint64, error) { return req.Instances, 0, nil })
}

func (s *Server) rollback(ctx context.Context, req *RollbackRequest) (any, error) {
	id, err := appID(req.App, req.Env)
	if err != nil {
		return nil, err
	}
	return s.move(ctx, id, "rollback", func(snap *state.Snapshot, a *model.App) (int, uint64, error) {
		if req.Release != 0 {
			return a.Instances, req.Release, nil
		}
		good := lastGood(snap, a)
		if good == 0 {
			return 0, 0, model.Errorf(model.CodeConflict, "there is nothing to roll %s back to", id).
				Because("no other release of it has succeeded")
		}
		return a.Instances, good, nil
	})
}

// lastGood is the newest release before the present one whose deployment
// succeeded.
func lastGood(snap *state.Snapshot, a *model.App) uint64 {
	var good uint64
	for d := range state.Deployments.By(snap, "app", a.ID) {
		if d.State == model.DeploymentSucceeded && d.To < a.Release {
			good = max(good, d.To)
		}
	}
	return good
}

// restart releases the present spec once more, which replaces every task.
func (s *Server) restart(ctx context.Context, req *RollbackRequest) (any, error) {
	id, err := appID(req.App, req.Env)
	if err != nil {
		return nil, err
	}
	if err := s.Cluster.Sync(ctx); err != nil {
		return nil, err
	}
	snap := s.Store.Snapshot()
	a := state.Apps.Get(snap, id)
	if a == nil {
		return nil, unknownApp(snap, id)
	}
	rel := state.Releases.Get(snap, model.ReleaseKey(id, a.Release))
	if rel == nil {
		return nil, model.Errorf(model.CodeInternal, "release %d of %s is gone", a.Release, id)
	}
	env, _ := model.SplitAppID(id)
	return s.release(ctx, id, env, templateOf(rel), a.Instances, "restart", model.Release{Digest: rel.Digest, From: rel.From})
}

func (s *Server) move(ctx context.Context, id, kind string, to func(*state.Snapshot, *model.App) (int, uint64, error)) (any, error) {
	if err := s.Cluster.Sync(ctx); err != nil {
		return nil, err
	}
	snap := s.Store.Snapshot()
	a := state.Apps.Get(snap, id)
	if a == nil {
		return nil, unknownApp(snap, id)
	}
	instances, release, err := to(snap, a)
	if err != nil {
		return nil, err
	}
	dep := newDeployment(kind, time.Now().UTC(), 0)
	res, err := command.Do(ctx, s.Proposer, &command.ScaleApp{App: id, Instances: instances, Release: release, Deployment: dep})
	if err != nil {
		return nil, err
	}
	return s.accepted(res)
}

func (s *Server) stop(ctx context.Context, req *StopRequest) (any, error) {
	id, err := appID(req.App, req.Env)
	if err != nil {
		return nil, err
	}
	if err := s.Cluster.Sync(ctx); err != nil {
		return nil, err
	}
	if snap := s.Store.Snapshot(); state.Apps.Get(snap, id) == nil {
		return nil, unknownApp(snap, id)
	}
	_, err = command.Do(ctx, s.Proposer, &command.DeleteApp{App: id, At: time.Now().UTC()})
	return Accepted{App: id}, err
}

// label is a DNS label (RFC 1035).
var label = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// positive refuses a token that is over before it begins; 0 is the default.
func positive(ttl model.Duration) error {
	if ttl < 0 {
		return model.Errorf(model.CodeInvalid, "a token cannot live for %s", ttl).Try("give a time such as 1h")
	}
	return nil
}
