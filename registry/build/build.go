// Package build makes container images without a container engine: files on
// top of nothing or of a base image, as an OCI layout. The same input gives
// the same digest, wherever and whenever it is built: entries are sorted,
// times and owners fixed, file modes reduced to executable or not.
package build

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"appliance/registry"
	"appliance/registry/ref"
)

// Media types of what an image is made of.
const (
	mediaConfig = "application/vnd.oci.image.config.v1+json"
	mediaLayer  = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// Spec says what an image is made of.
type Spec struct {
	// Base is the image below; nil means scratch. BaseName is recorded as an
	// annotation.
	Base     Base
	BaseName string
	// Context is the directory that relative Copy sources lie in; nothing
	// outside it is read, not even through symbolic links.
	Context string
	Copies  []Copy
	// Certificates is a PEM file of the builder's machine that becomes
	// /etc/ssl/certs/ca-certificates.crt; empty adds none.
	Certificates string
	Config       Config
	Architecture string            // empty means amd64
	Annotations  map[string]string // of the manifest
	// Created is recorded if set, as from SOURCE_DATE_EPOCH; it is also the
	// time of all files. Zero leaves it out and dates files 1970.
	Created time.Time
}

// Copy puts files into the image. Each Copy is a layer of its own.
type Copy struct {
	Sources []string // relative to Spec.Context
	To      string   // as in a Dockerfile: ends in "/" for a directory
	UID     int
	GID     int
	Mode    int64 // permission bits of files; 0 means 0755 if executable, else 0644
}

// Config is what a container starts with. Empty fields keep the base's value;
// Env, Labels and Ports add to it.
type Config struct {
	User       string
	Env        []string // "NAME=value"
	Entrypoint []string
	Cmd        []string
	WorkingDir string
	Ports      []string // "8000" or "53/udp"
	Labels     map[string]string
}

// Base gives access to the image below: an OCI layout or a registry.
type Base interface {
	// Manifest returns the image's manifest or index and its digest, or a
	// child of the index.
	Manifest(ctx context.Context, child ref.Digest) ([]byte, ref.Digest, error)
	// Blob reads a blob of the image.
	Blob(ctx context.Context, d ref.Digest) (io.ReadCloser, error)
}

// Build makes the image in the layout and returns its manifest, which is not
// tagged yet.
func Build(ctx context.Context, spec Spec, out *Layout) (registry.Descriptor, error) {
	if err := spec.check(); err != nil {
		return registry.Descriptor{}, err
	}
	img := &image{Architecture: spec.Architecture, OS: "linux", RootFS: rootFS{Type: "layers", DiffIDs: []ref.Digest{}}}
	manifest := registry.Document{SchemaVersion: 2, MediaType: registry.MediaManifest, Layers: []registry.Descriptor{}, Annotations: maps.Clone(spec.Annotations)}
	if spec.Base != nil {
		if err := addBase(ctx, spec, out, img, &manifest); err != nil {
			return registry.Descriptor{}, err
		}
	}
	for _, step := range spec.steps() {
		if err := ctx.Err(); err != nil {
			return registry.Descriptor{}, err
		}
		layer, diff, err := addLayer(out, step.write)
		if err != nil {
			return registry.Descriptor{}, fmt.Errorf("%s: %w", step.name, err)
		}
		manifest.Layers = append(manifest.Layers, layer)
		img.RootFS.DiffIDs = append(img.RootFS.DiffIDs, diff)
		img.History = append(img.History, history{CreatedBy: step.name, Created: stamp(spec.Created)})
	}
	img.Created = stamp(spec.Created)
	img.Config.apply(spec.Config)
	return finish(out, img, manifest, spec.Created)
}

func (s *Spec) check() error {
	if s.Architecture == "" {
		s.Architecture = "amd64"
	}
	if s.Base == nil && len(s.Copies) == 0 {
		return errors.New("an image on scratch needs at least one file")
	}
	if w := s.Config.WorkingDir; w != "" && !path.IsAbs(w) {
		return fmt.Errorf("working directory %q: want an absolute path", w)
	}
	for _, e := range s.Config.Env {
		if name, _, ok := strings.Cut(e, "="); !ok || name == "" {
			return fmt.Errorf("environment %q: want NAME=value", e)
		}
	}
	for i, p := range s.Config.Ports {
		port, err := parsePort(p)
		if err != nil {
			return err
		}
		s.Config.Ports[i] = port
	}
	return nil
}

// step is one layer.
type step struct {
	name  string
	write func(*layerWriter) error
}

func (s *Spec) steps() []step {
	var steps []step
	if s.Base == nil {
		steps = append(steps, step{"base files", s.writeBaseFiles})
	} else if s.Certificates != "" {
		steps = append(steps, step{"certificates", func(w *layerWriter) error { return w.hostFile(s.Certificates, certificatesPath) }})
	}
	for _, c := range s.Copies {
		name := "COPY " + strings.Join(c.Sources, " ") + " " + c.To
		steps = append(steps, step{name, func(w *layerWriter) error { return s.writeCopy(w, c) }})
	}
	for i := range steps {
		write := steps[i].write
		steps[i].write = func(w *layerWriter) error {
			w.modified = s.Created
			return write(w)
		}
	}
	return steps
}

// addLayer writes a gzipped tar and returns it and the digest of the tar.
func addLayer(out *Layout, write func(*layerWriter) error) (registry.Descriptor, ref.Digest, error) {
	diff := sha256.New()
	d, err := out.add(mediaLayer, "", func(w io.Writer) error {
		z := gzip.NewWriter(w) // no name and no time in the header
		tw := newLayerWriter(io.MultiWriter(z, diff))
		if err := write(tw); err != nil {
			return err
		}
		return errors.Join(tw.Close(), z.Close())
	})
	return d, ref.FromHash(diff), err
}

// finish writes config and manifest. JSON objects made from maps are sorted.
func finish(out *Layout, img *image, manifest registry.Document, created time.Time) (registry.Descriptor, error) {
	b, err := json.Marshal(img)
	if err != nil {
		return registry.Descriptor{}, err
	}
	config, err := out.addBytes(mediaConfig, b)
	if err != nil {
		return registry.Descriptor{}, err
	}
	manifest.Config = &config
	if !created.IsZero() {
		if manifest.Annotations == nil {
			manifest.Annotations = map[string]string{}
		}
		manifest.Annotations["org.opencontainers.image.created"] = *stamp(created)
	}
	if b, err = json.Marshal(manifest); err != nil {
		return registry.Descriptor{}, err
	}
	d, err := out.addBytes(registry.MediaManifest, b)
	if err != nil {
		return registry.Descriptor{}, err
	}
	d.Platform = &registry.Platform{Architecture: img.Architecture, OS: img.OS}
	return d, nil
}

func stamp(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	s := t.UTC().Format(time.RFC3339)
	return &s
}

func parsePort(s string) (string, error) {
	number, protocol, ok := strings.Cut(s, "/")
	if !ok {
		protocol = "tcp"
	}
	n := 0
	_, err := fmt.Sscanf(number, "%d", &n)
	if err != nil || fmt.Sprint(n) != number || n < 1 || n > 65535 || !slices.Contains([]string{"tcp", "udp", "sctp"}, protocol) {
		return "", fmt.Errorf("port %q: want 1-65535, optionally with /tcp, /udp or /sctp", s)
	}
	return number + "/" + protocol, nil
}
