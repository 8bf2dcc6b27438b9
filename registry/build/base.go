package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"appliance/registry"
	"appliance/registry/client"
	"appliance/registry/ref"
)

// LayoutBase takes a base image from an OCI layout by tag or digest.
func LayoutBase(l *Layout, name string) Base { return layoutBase{l, name} }

type layoutBase struct {
	layout *Layout
	name   string
}

func (b layoutBase) Manifest(ctx context.Context, child ref.Digest) ([]byte, ref.Digest, error) {
	if child == "" {
		d, err := b.layout.Resolve(b.name)
		if err != nil {
			return nil, "", err
		}
		child = d.Digest
	}
	body, err := readAll(ctx, b, child)
	return body, child, err
}

func (b layoutBase) Blob(_ context.Context, d ref.Digest) (io.ReadCloser, error) {
	return b.layout.Open(d)
}

// RegistryBase takes a base image from a registry by tag or digest.
func RegistryBase(c *client.Client, repository, object string) Base {
	return registryBase{c, repository, object}
}

type registryBase struct {
	*client.Client
	repository, object string
}

func (b registryBase) Manifest(ctx context.Context, child ref.Digest) ([]byte, ref.Digest, error) {
	object := b.object
	if child != "" {
		object = string(child)
	}
	body, d, err := b.Client.Manifest(ctx, b.repository, object)
	return body, d.Digest, err
}

func (b registryBase) Blob(ctx context.Context, d ref.Digest) (io.ReadCloser, error) {
	return b.Client.Blob(ctx, b.repository, d)
}

// addBase copies the base's layers and takes over its configuration.
func addBase(ctx context.Context, spec Spec, out *Layout, img *image, manifest *registry.Document) error {
	doc, digest, err := pickPlatform(ctx, spec)
	if err != nil {
		return fmt.Errorf("base image: %w", err)
	}
	config, err := readAll(ctx, spec.Base, doc.Config.Digest)
	if err != nil {
		return fmt.Errorf("base image: %w", err)
	}
	if err := json.Unmarshal(config, img); err != nil {
		return fmt.Errorf("base image: config %s: %w", doc.Config.Digest, err)
	}
	if img.OS != "linux" || img.Architecture != spec.Architecture {
		return fmt.Errorf("base image is for %s/%s, want linux/%s", img.OS, img.Architecture, spec.Architecture)
	}
	if len(img.RootFS.DiffIDs) != len(doc.Layers) {
		return fmt.Errorf("base image: %d layers but %d diff ids", len(doc.Layers), len(img.RootFS.DiffIDs))
	}
	for _, layer := range doc.Layers {
		if err := out.copyFrom(ctx, spec.Base, layer); err != nil {
			return fmt.Errorf("base image: %w", err)
		}
		layer.MediaType = ociLayerType(layer.MediaType)
		manifest.Layers = append(manifest.Layers, layer)
	}
	if manifest.Annotations == nil {
		manifest.Annotations = map[string]string{}
	}
	manifest.Annotations["org.opencontainers.image.base.digest"] = string(digest)
	if spec.BaseName != "" {
		manifest.Annotations["org.opencontainers.image.base.name"] = spec.BaseName
	}
	return nil
}

// ociLayerType renames Docker's type, for one manifest should not mix both.
func ociLayerType(mediaType string) string {
	if mediaType == "application/vnd.docker.image.rootfs.diff.tar.gzip" {
		return mediaLayer
	}
	return mediaType
}

// pickPlatform follows an index to the image for the wanted architecture.
func pickPlatform(ctx context.Context, spec Spec) (registry.Document, ref.Digest, error) {
	var child ref.Digest
	for range 3 { // an index may hold an index, but not for ever
		var doc registry.Document
		body, digest, err := spec.Base.Manifest(ctx, child)
		if err != nil {
			return doc, "", err
		}
		if err := json.Unmarshal(body, &doc); err != nil {
			return doc, "", fmt.Errorf("manifest %s: %w", digest, err)
		}
		if doc.Config != nil {
			return doc, digest, nil
		}
		if child, err = choose(doc.Manifests, spec.Architecture); err != nil {
			return doc, "", err
		}
	}
	return registry.Document{}, "", errors.New("image indexes nested too deeply")
}

func choose(list []registry.Descriptor, architecture string) (ref.Digest, error) {
	for _, m := range list {
		if m.Platform != nil && m.Platform.OS == "linux" && m.Platform.Architecture == architecture {
			return m.Digest, nil
		}
	}
	return "", fmt.Errorf("no variant for linux/%s among %d", architecture, len(list))
}
