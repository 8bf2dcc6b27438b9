package registry

import (
	"context"
	"errors"
	"time"

	"appliance/registry/ref"
)

var (
	// ErrManifestUnknown: the repository has no such tag or manifest.
	ErrManifestUnknown = errors.New("manifest unknown")
	// ErrNameUnknown: no manifest was ever pushed to this repository.
	ErrNameUnknown = errors.New("repository unknown")
	// ErrDenied: known to the registry, but not allowed; wrap it with the reason.
	ErrDenied = errors.New("denied")
)

// Manifest is what the cluster's log knows of a manifest. Its bytes are a
// blob under Digest. Everything in it is decided before it is proposed.
type Manifest struct {
	Repository   string            `json:"repository"`
	Digest       ref.Digest        `json:"digest"`
	MediaType    string            `json:"mediaType"`
	Size         int64             `json:"size"` // bytes
	ArtifactType string            `json:"artifactType,omitempty"`
	Subject      ref.Digest        `json:"subject,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	Blobs        []ref.Digest      `json:"blobs,omitempty"`     // config and layers
	Manifests    []ref.Digest      `json:"manifests,omitempty"` // children of an image index
	PushedBy     string            `json:"pushedBy,omitempty"`
	PushedAt     time.Time         `json:"pushedAt"`
}

// Tag is a name for a manifest, with where it pointed before.
type Tag struct {
	Name    string     `json:"name"`
	Digest  ref.Digest `json:"digest"`
	History []TagMove  `json:"history,omitempty"` // newest first, at most MaxTagHistory
}

// TagMove is one earlier or present target of a tag.
type TagMove struct {
	Digest ref.Digest `json:"digest"`
	By     string     `json:"by,omitempty"`
	At     time.Time  `json:"at"`
}

// MaxTagHistory bounds the state kept per tag; ten releases back is far
// enough for a rollback.
const MaxTagHistory = 10

// IndexReader answers from the node's own copy of the replicated state.
type IndexReader interface {
	// Manifest finds a manifest by tag or digest; ErrManifestUnknown, or
	// ErrNameUnknown if there is no such repository.
	Manifest(ctx context.Context, repository, reference string) (Manifest, error)
	// Tags lists a repository's tags in any order; ErrNameUnknown.
	Tags(ctx context.Context, repository string) ([]Tag, error)
	// Repositories lists the names that hold a manifest, in any order.
	Repositories(ctx context.Context) ([]string, error)
	// Referrers lists the manifests whose Subject is subject, in any order.
	Referrers(ctx context.Context, repository string, subject ref.Digest) ([]Manifest, error)
}

// IndexWriter changes the replicated state. Each call is one committed entry;
// an error means nothing changed. A cluster without a leader returns
// blob.ErrUnavailable.
type IndexWriter interface {
	// PutManifest records m and, unless tag is empty, points tag at it.
	// Repeating it is not an error.
	PutManifest(ctx context.Context, m Manifest, tag string) error
	// DeleteManifest forgets the manifest and the tags that point at it.
	DeleteManifest(ctx context.Context, repository string, d ref.Digest) error
	// Tag points a tag at a manifest of the repository.
	Tag(ctx context.Context, repository, tag string, d ref.Digest) error
	// Untag removes a tag; the manifest stays until garbage collection.
	Untag(ctx context.Context, repository, tag string) error
}

// Index is the registry's metadata.
type Index interface {
	IndexReader
	IndexWriter
}
