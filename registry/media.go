package registry

import (
	"encoding/json"
	"fmt"
	"mime"
	"net/http"

	"appliance/registry/ref"
)

// Media types of manifests.
const (
	MediaManifest       = "application/vnd.oci.image.manifest.v1+json"
	MediaIndex          = "application/vnd.oci.image.index.v1+json"
	MediaDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	MediaDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
)

const (
	// maxManifest is what the specification asks registries to take.
	maxManifest = 4 << 20
	// maxReferences: Docker allows 127 layers; an index lists platforms.
	maxReferences = 1024
	// maxAnnotations bounds what a manifest puts into the cluster's log, bytes.
	// More are served with the manifest, but not listed with referrers.
	maxAnnotations = 64 << 10
)

// Descriptor points at content (OCI image specification 1.1).
type Descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       ref.Digest        `json:"digest"`
	Size         int64             `json:"size"`
	URLs         []string          `json:"urls,omitempty"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	Platform     *Platform         `json:"platform,omitempty"`
}

// Platform of a child of an image index.
type Platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	Variant      string `json:"variant,omitempty"`
}

// Document is the common shape of image manifests and indexes, of OCI and of
// Docker schema 2.
type Document struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType,omitempty"`
	ArtifactType  string            `json:"artifactType,omitempty"`
	Config        *Descriptor       `json:"config,omitempty"`
	Layers        []Descriptor      `json:"layers,omitempty"`
	Manifests     []Descriptor      `json:"manifests,omitempty"`
	Subject       *Descriptor       `json:"subject,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

func invalid(format string, args ...any) error {
	return apiError{http.StatusBadRequest, "MANIFEST_INVALID", fmt.Sprintf(format, args...)}
}

// parseDocument reads a manifest body and settles its media type: the one
// inside wins the right to be compared with the header.
func parseDocument(body []byte, contentType string) (Document, error) {
	var doc Document
	if err := json.Unmarshal(body, &doc); err != nil {
		return doc, invalid("the manifest is not JSON of the expected shape: %v", err)
	}
	header, _, _ := mime.ParseMediaType(contentType)
	switch {
	case doc.MediaType == "":
		doc.MediaType = header
	case header != "" && header != doc.MediaType:
		return doc, invalid("Content-Type is %q but the manifest says mediaType %q", header, doc.MediaType)
	}
	return doc, doc.check()
}

func (doc *Document) check() error {
	if doc.SchemaVersion != 2 {
		return invalid("schemaVersion %d: want 2 (Docker schema 1 is not supported)", doc.SchemaVersion)
	}
	switch doc.MediaType {
	case MediaManifest, MediaDockerManifest:
		if doc.Config == nil || len(doc.Manifests) > 0 {
			return invalid("an image manifest has a config and no manifests")
		}
	case MediaIndex, MediaDockerList:
		if doc.Config != nil || len(doc.Layers) > 0 {
			return invalid("an image index has neither config nor layers")
		}
	default:
		return invalid("media type %q: want an OCI or Docker schema 2 image manifest or index", doc.MediaType)
	}
	if n := len(doc.Layers) + len(doc.Manifests); n > maxReferences {
		return invalid("%d references, at most %d are allowed", n, maxReferences)
	}
	return doc.checkDescriptors()
}

func (doc *Document) checkDescriptors() error {
	all := append(doc.blobs(), doc.Manifests...)
	if doc.Subject != nil {
		all = append(all, *doc.Subject)
	}
	for _, d := range all {
		if _, err := ref.ParseDigest(string(d.Digest)); err != nil {
			return invalid("%v", err)
		}
		if d.Size < 0 {
			return invalid("%s: negative size", d.Digest)
		}
	}
	return nil
}

// blobs returns config and layers; foreign layers, which have URLs of their
// own, need not be here.
func (doc *Document) blobs() []Descriptor {
	var all []Descriptor
	if doc.Config != nil {
		all = append(all, *doc.Config)
	}
	for _, l := range doc.Layers {
		if len(l.URLs) == 0 {
			all = append(all, l)
		}
	}
	return all
}

// annotations returns what the index keeps of them.
func (doc *Document) annotations() map[string]string {
	size := 0
	for k, v := range doc.Annotations {
		size += len(k) + len(v)
	}
	if size > maxAnnotations {
		return nil
	}
	return doc.Annotations
}

// artifactType is what the referrers API filters by (OCI distribution 1.1).
func (doc *Document) artifactType() string {
	if doc.ArtifactType == "" && doc.Config != nil {
		return doc.Config.MediaType
	}
	return doc.ArtifactType
}
