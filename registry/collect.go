package registry

import (
	"context"
	"errors"

	"appliance/registry/blob"
	"appliance/registry/gc"
)

// Sweep deletes this node's garbage blobs: the store's files that in, which
// comes without Blobs, gives no reason to keep. Every node sweeps its own
// store from its own copy of the replicated state, also an agent its cache.
// The plan's Manifests are for the leader to delete through the log.
func Sweep(ctx context.Context, store *blob.Store, in gc.Input) (plan gc.Plan, deleted int, err error) {
	for info, err := range store.List(ctx) {
		if err != nil {
			return gc.Plan{}, 0, err
		}
		in.Blobs = append(in.Blobs, gc.Blob{Digest: info.Digest, Modified: info.Modified})
	}
	if in.Grace == 0 {
		in.Grace = gc.Grace
	}
	plan = gc.Collect(in)
	for _, d := range plan.Blobs {
		if err := ctx.Err(); err != nil {
			return plan, deleted, err
		}
		gone, deleteErr := store.DeleteOlder(d, in.Now.Add(-in.Grace))
		if gone && deleteErr == nil {
			deleted++
		}
		err = errors.Join(err, deleteErr)
	}
	return plan, deleted, err
}

// Garbage describes the manifest to package gc.
func (m Manifest) Garbage() gc.Manifest {
	return gc.Manifest{Repository: m.Repository, Digest: m.Digest, Subject: m.Subject, Blobs: m.Blobs, Manifests: m.Manifests, PushedAt: m.PushedAt}
}

// Keeps names the manifests that the tag keeps: its target and its history,
// so that a rollback finds them.
func (t Tag) Keeps(repository string) []gc.Name {
	names := []gc.Name{{Repository: repository, Digest: t.Digest}}
	for _, move := range t.History {
		names = append(names, gc.Name{Repository: repository, Digest: move.Digest})
	}
	return names
}
