package node

import (
	"context"
	"log/slog"
	"time"

	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
	"appliance/registry"
	"appliance/registry/blob"
	"appliance/registry/gc"
	"appliance/registry/ref"
)

// gcEvery is the pause between two collections; garbage has a grace of an
// hour, so there is no hurry.
const gcEvery = 15 * time.Minute

// imageGC removes the blobs that nothing refers to from this node, and on the
// leader the manifests that nobody can reach any more.
type imageGC struct {
	index imageIndex
	blobs *blob.Store
	fresh func() bool
	leads func() bool
	log   *slog.Logger
}

// Run collects until ctx ends. A node out of touch with the masters does not:
// what it takes for garbage may be in use.
func (g *imageGC) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		pause(ctx, gcEvery)
		if ctx.Err() != nil || !g.fresh() {
			continue
		}
		if err := g.collect(ctx); err != nil && ctx.Err() == nil {
			g.log.Warn("images are not collected this time", "err", err)
		}
	}
	return nil
}

func (g *imageGC) collect(ctx context.Context) error {
	snap := g.index.store.Snapshot()
	plan, deleted, err := registry.Sweep(ctx, g.blobs, imageUse(snap, time.Now()))
	if deleted > 0 {
		g.log.Info("blobs without a use are deleted", "count", deleted)
	}
	if err != nil || !g.leads() {
		return err
	}
	for _, m := range plan.Manifests {
		if err := g.index.propose(ctx, &command.DeleteManifest{Repo: m.Repository, Digest: string(m.Digest), At: time.Now().UTC()}); err != nil {
			return err
		}
	}
	return nil
}

// imageUse says what the registry holds and what of it is needed: the images
// of all kept releases, so that a rollback finds its image.
func imageUse(snap *state.Snapshot, now time.Time) gc.Input {
	in := gc.Input{Now: now}
	for m := range state.Manifests.All(snap) {
		in.Manifests = append(in.Manifests, fromModel(m).Garbage())
	}
	for t := range state.Tags.All(snap) {
		in.Tags = append(in.Tags, tagFromModel(t).Keeps(t.Repo)...)
	}
	for r := range state.Releases.All(snap) {
		if r.Digest != "" {
			in.InUse = append(in.InUse, ref.Digest(r.Digest))
		}
	}
	return in
}

func tagFromModel(t *model.Tag) registry.Tag {
	tag := registry.Tag{Name: t.Name, Digest: ref.Digest(t.Digest)}
	for _, d := range t.History {
		tag.History = append(tag.History, registry.TagMove{Digest: ref.Digest(d)})
	}
	return tag
}
