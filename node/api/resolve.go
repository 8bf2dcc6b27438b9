package api

import (
	"context"
	"strings"

	"appliance/discovery"
	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
)

// Resolve finds what an image reference means in the cluster's registry. A
// reference with a foreign host is not ours to resolve.
func Resolve(snap *state.Snapshot, image string) (repo, digest string, ok bool) {
	repo, digest, pinned := strings.Cut(image, "@")
	if pinned {
		repo, _ = splitTag(repo)
		if state.Manifests.Get(snap, repo+"@"+digest) == nil {
			return "", "", false
		}
		return repo, digest, true
	}
	repo, tag := splitTag(image)
	t := state.Tags.Get(snap, repo+":"+tag)
	if t == nil {
		return "", "", false
	}
	return repo, t.Digest, true
}

func splitTag(ref string) (repo, tag string) {
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		return ref[:i], ref[i+1:]
	}
	return ref, "latest"
}

// Foreign reports whether an image reference names another registry.
func Foreign(image string) bool {
	host, _, slash := strings.Cut(image, "/")
	return slash && (strings.ContainsAny(host, ".:") || host == "localhost")
}

// Admission stands before the log for every dialect: it validates a release,
// strips the loopback form of our own registry, and pins the image to the
// digest that its tag means now.
type Admission struct {
	Next     command.Proposer
	Store    *state.Store
	Registry string // loopback endpoint, "127.0.0.1:5000"
	// Admit says why a spec cannot run here: bad values, an unknown environment,
	// constraints that no node can ever meet.
	Admit func(*state.Snapshot, *model.AppSpec) error
}

// Propose admits releases and lets everything else through.
func (a *Admission) Propose(ctx context.Context, c command.Command) (command.Result, error) {
	rel, ok := c.(*command.CreateRelease)
	if !ok {
		if scale, ok := c.(*command.ScaleApp); ok && (scale.Instances < 0 || scale.Instances > MaxInstances) {
			return command.Result{}, model.Errorf(model.CodeInvalid, "%d instances are not possible", scale.Instances).
				Because("an app may have 0 to %d", MaxInstances)
		}
		return a.Next.Propose(ctx, c)
	}
	admitted := *rel
	if err := a.admit(&admitted); err != nil {
		return command.Result{}, err
	}
	return a.Next.Propose(ctx, &admitted)
}

// MaxInstances bounds one app: beyond it a typo is likelier than a wish.
const MaxInstances = 10000

func (a *Admission) admit(c *command.CreateRelease) error {
	spec := &c.Release.Spec
	for _, own := range []string{a.Registry + "/", "localhost:" + port(a.Registry) + "/"} {
		spec.Image = strings.TrimPrefix(spec.Image, own)
	}
	if c.Instances < 0 || c.Instances > MaxInstances {
		return model.Errorf(model.CodeInvalid, "%d instances are not possible", c.Instances).Because("an app may have 0 to %d", MaxInstances)
	}
	if len(spec.Checks) == 0 {
		spec.Checks = discovery.ConventionChecks(*spec)
	}
	if err := a.Admit(a.Store.Snapshot(), spec); err != nil {
		return err
	}
	if c.Release.Digest != "" || spec.Image == "" || Foreign(spec.Image) {
		return nil
	}
	_, digest, ok := Resolve(a.Store.Snapshot(), spec.Image)
	if !ok {
		return model.Errorf(model.CodeNotFound, "there is no image %s in the cluster's registry", spec.Image).
			Try("push it first: appliance build, or docker push %s/%s", a.Registry, spec.Image)
	}
	c.Release.Digest = digest
	return nil
}

func port(hostport string) string { return hostport[strings.LastIndexByte(hostport, ':')+1:] }
