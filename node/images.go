package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"

	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
	"appliance/registry"
	"appliance/registry/blob"
	"appliance/registry/ref"
)

// imageIndex is the registry's metadata in the replicated state.
type imageIndex struct {
	store    *state.Store
	proposer command.Proposer
}

var _ registry.Index = imageIndex{}

func (x imageIndex) Manifest(_ context.Context, repo, reference string) (registry.Manifest, error) {
	snap := x.store.Snapshot()
	digest := reference
	if !strings.Contains(reference, ":") {
		tag := state.Tags.Get(snap, repo+":"+reference)
		if tag == nil {
			return registry.Manifest{}, x.unknown(snap, repo)
		}
		digest = tag.Digest
	}
	m := state.Manifests.Get(snap, repo+"@"+digest)
	if m == nil {
		return registry.Manifest{}, x.unknown(snap, repo)
	}
	return fromModel(m), nil
}

func (x imageIndex) unknown(snap *state.Snapshot, repo string) error {
	for range state.Manifests.By(snap, "repo", repo) {
		return registry.ErrManifestUnknown
	}
	return registry.ErrNameUnknown
}

func fromModel(m *model.Manifest) registry.Manifest {
	return registry.Manifest{Repository: m.Repo, Digest: ref.Digest(m.Digest), MediaType: m.MediaType, Size: m.Size,
		ArtifactType: m.ArtifactType, Subject: ref.Digest(m.Subject), Annotations: m.Annotations,
		Blobs: digests[ref.Digest](m.Blobs), Manifests: digests[ref.Digest](m.Manifests), PushedBy: m.By, PushedAt: m.PushedAt}
}

func digests[To, From ~string](list []From) []To {
	var out []To
	for _, d := range list {
		out = append(out, To(d))
	}
	return out
}

func (x imageIndex) Tags(_ context.Context, repo string) ([]registry.Tag, error) {
	snap := x.store.Snapshot()
	var out []registry.Tag
	for t := range state.Tags.By(snap, "repo", repo) {
		out = append(out, tagFromModel(t))
	}
	if len(out) == 0 && x.unknown(snap, repo) == registry.ErrNameUnknown {
		return nil, registry.ErrNameUnknown
	}
	return out, nil
}

func (x imageIndex) Repositories(context.Context) ([]string, error) {
	var out []string
	for m := range state.Manifests.All(x.store.Snapshot()) { // in the order of repository@digest
		if len(out) == 0 || out[len(out)-1] != m.Repo {
			out = append(out, m.Repo)
		}
	}
	return out, nil
}

func (x imageIndex) Referrers(_ context.Context, repo string, subject ref.Digest) ([]registry.Manifest, error) {
	var out []registry.Manifest
	for m := range state.Manifests.By(x.store.Snapshot(), "subject", repo+"@"+string(subject)) {
		out = append(out, fromModel(m))
	}
	return out, nil
}

func (x imageIndex) PutManifest(ctx context.Context, m registry.Manifest, tag string) error {
	c := &command.PutManifest{Manifest: model.Manifest{Repo: m.Repository, Digest: string(m.Digest), MediaType: m.MediaType,
		ArtifactType: m.ArtifactType, Size: m.Size, Subject: string(m.Subject), Blobs: digests[string](m.Blobs),
		Manifests: digests[string](m.Manifests), Annotations: m.Annotations, PushedAt: m.PushedAt, By: m.PushedBy}}
	if tag != "" {
		c.Tags = []string{tag}
	}
	return x.propose(ctx, c)
}

func (x imageIndex) DeleteManifest(ctx context.Context, repo string, d ref.Digest) error {
	return x.propose(ctx, &command.DeleteManifest{Repo: repo, Digest: string(d), At: time.Now().UTC()})
}

func (x imageIndex) Tag(ctx context.Context, repo, tag string, d ref.Digest) error {
	m, err := x.Manifest(ctx, repo, string(d))
	if err != nil {
		return err
	}
	return x.PutManifest(ctx, m, tag)
}

func (x imageIndex) Untag(ctx context.Context, repo, tag string) error {
	return x.propose(ctx, &command.DeleteTag{Repo: repo, Name: tag})
}

// wanted yields the blobs that the index refers to.
func (x imageIndex) wanted(ctx context.Context) iter.Seq[ref.Digest] {
	return func(yield func(ref.Digest) bool) {
		for m := range state.Manifests.All(x.store.Snapshot()) {
			if ctx.Err() != nil || !yield(ref.Digest(m.Digest)) {
				return
			}
			for _, d := range m.Blobs {
				if !yield(ref.Digest(d)) {
					return
				}
			}
		}
	}
}

// propose translates failures into the registry's words.
func (x imageIndex) propose(ctx context.Context, c command.Command) error {
	_, err := command.Do(ctx, x.proposer, c)
	var e *model.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e) && e.Code == model.CodeNotFound:
		return registry.ErrManifestUnknown
	case errors.As(err, &e):
		return fmt.Errorf("%w: %w", registry.ErrDenied, err)
	}
	return fmt.Errorf("%w: %w", blob.ErrUnavailable, err)
}

// imageLabels reads the labels of images for the API.
type imageLabels struct {
	index imageIndex
	blobs registry.Blobs
}

// maxConfig bounds the documents that Labels reads.
const maxConfig = 4 << 20

// Labels reads an image's config; an index answers with its first child that
// has labels.
func (l imageLabels) Labels(ctx context.Context, repo, digest string) (map[string]string, error) {
	m, err := l.index.Manifest(ctx, repo, digest)
	if err != nil {
		return nil, err
	}
	for _, child := range m.Manifests {
		labels, err := l.Labels(ctx, repo, string(child))
		if err != nil || len(labels) > 0 {
			return labels, err
		}
	}
	if len(m.Manifests) > 0 {
		return nil, nil
	}
	var doc struct {
		Config struct {
			Digest string
		}
	}
	if err := l.read(ctx, m.Digest, &doc); err != nil {
		return nil, err
	}
	var config struct {
		Config struct {
			Labels map[string]string
		} `json:"config"`
	}
	if doc.Config.Digest == "" {
		return nil, nil
	}
	err = l.read(ctx, ref.Digest(doc.Config.Digest), &config)
	return config.Config.Labels, err
}

func (l imageLabels) read(ctx context.Context, d ref.Digest, into any) error {
	content, err := l.blobs.Open(ctx, d)
	if err != nil {
		return model.Errorf(model.CodeUnavailable, "a part of the image cannot be read").Because("blob %s: %v", d, err).
			Try("push the image again, or wait for the masters to be back")
	}
	defer content.Close()
	return json.NewDecoder(io.LimitReader(content, maxConfig)).Decode(into)
}
