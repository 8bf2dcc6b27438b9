package command

import (
	"time"

	"appliance/node/model"
	"appliance/raft/state"
)

// maxTagHistory is how many former digests of a tag are kept.
const maxTagHistory = 20

// PutManifest adds a manifest and points tags at it.
type PutManifest struct {
	Manifest model.Manifest `json:"manifest"`
	Tags     []string       `json:"tags,omitempty"`
}

func (c *PutManifest) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	m := c.Manifest
	if state.Manifests.Get(&tx.Snapshot, m.Key()) == nil {
		state.Manifests.Put(tx, index, &m)
		record(tx, index, m.PushedAt, "image", m.Repo, "got "+m.Digest, map[string]string{"by": m.By})
	}
	for _, name := range c.Tags {
		tag := model.Tag{Repo: m.Repo, Name: name, Digest: m.Digest, PushedAt: m.PushedAt}
		if old := state.Tags.Get(&tx.Snapshot, tag.Key()); old != nil {
			tag.History = old.History
			if old.Digest != m.Digest {
				tag.History = append([]string{old.Digest}, old.History...)
			}
		}
		if len(tag.History) > maxTagHistory {
			tag.History = tag.History[:maxTagHistory]
		}
		state.Tags.Put(tx, index, &tag)
	}
	return nil, nil
}

// DeleteManifest removes a manifest and the tags that point at it. One that a
// release runs stays.
type DeleteManifest struct {
	Repo   string    `json:"repo"`
	Digest string    `json:"digest"`
	At     time.Time `json:"at"`
}

func (c *DeleteManifest) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	key := c.Repo + "@" + c.Digest
	for r := range state.Releases.All(&tx.Snapshot) {
		if r.Digest == c.Digest {
			return nil, model.Errorf(model.CodeConflict, "manifest %s is in use", key).Because("release %d of %s runs it", r.Version, r.App)
		}
	}
	if !state.Manifests.Delete(tx, index, key) {
		return nil, model.Errorf(model.CodeNotFound, "manifest %s is not known", key)
	}
	for _, t := range collect(state.Tags.By(&tx.Snapshot, "repo", c.Repo)) {
		if t.Digest == c.Digest {
			state.Tags.Delete(tx, index, t.Key())
		}
	}
	record(tx, index, c.At, "image", c.Repo, "lost "+c.Digest, nil)
	return nil, nil
}

// DeleteTag removes one tag; the manifest stays.
type DeleteTag struct {
	Repo string `json:"repo"`
	Name string `json:"name"`
}

func (c *DeleteTag) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	if !state.Tags.Delete(tx, index, c.Repo+":"+c.Name) {
		return nil, model.Errorf(model.CodeNotFound, "tag %s:%s is not known", c.Repo, c.Name)
	}
	return nil, nil
}
