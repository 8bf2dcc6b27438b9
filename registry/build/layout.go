package build

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"appliance/registry"
	"appliance/registry/ref"
)

// refName is where an OCI layout keeps a manifest's tag.
const refName = "org.opencontainers.image.ref.name"

// ErrNotInLayout: the layout has no such manifest or blob.
var ErrNotInLayout = errors.New("not in the OCI layout")

// Layout is an OCI image layout in a directory (image specification 1.1). One
// writer at a time.
type Layout struct{ dir string }

// layoutIndex is index.json.
type layoutIndex struct {
	SchemaVersion int                   `json:"schemaVersion"`
	MediaType     string                `json:"mediaType,omitempty"`
	Manifests     []registry.Descriptor `json:"manifests"`
}

// CreateLayout opens the layout in dir, making it if dir is missing or empty.
func CreateLayout(dir string) (*Layout, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if len(entries) > 0 {
		return OpenLayout(dir)
	}
	l := &Layout{dir}
	if err := os.MkdirAll(filepath.Join(dir, "blobs", ref.SHA256), 0o755); err != nil {
		return nil, err
	}
	if err := l.writeIndex(layoutIndex{SchemaVersion: 2, MediaType: registry.MediaIndex, Manifests: []registry.Descriptor{}}); err != nil {
		return nil, err
	}
	return l, os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644)
}

// OpenLayout opens an existing layout.
func OpenLayout(dir string) (*Layout, error) {
	if _, err := os.Stat(filepath.Join(dir, "oci-layout")); err != nil {
		return nil, fmt.Errorf("%s is not an OCI image layout: it has no file oci-layout", dir)
	}
	return &Layout{dir}, nil
}

func (l *Layout) path(d ref.Digest) (string, error) {
	if _, err := ref.ParseDigest(string(d)); err != nil {
		return "", err
	}
	return filepath.Join(l.dir, "blobs", d.Algorithm(), d.Hex()), nil
}

// Open implements client.Source.
func (l *Layout) Open(d ref.Digest) (io.ReadSeekCloser, error) {
	path, err := l.path(d)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrNotInLayout, err)
	}
	return f, err
}

// Has says whether the layout holds a blob.
func (l *Layout) Has(d ref.Digest) bool {
	path, err := l.path(d)
	if err != nil {
		return false
	}
	_, err = os.Stat(path)
	return err == nil
}

// Resolve finds a manifest by tag or digest. An empty name means the only one.
func (l *Layout) Resolve(name string) (registry.Descriptor, error) {
	index, err := l.readIndex()
	if err != nil {
		return registry.Descriptor{}, err
	}
	if name == "" && len(index.Manifests) == 1 {
		return index.Manifests[0], nil
	}
	for _, m := range index.Manifests {
		if name != "" && (m.Annotations[refName] == name || string(m.Digest) == name) {
			return m, nil
		}
	}
	return registry.Descriptor{}, fmt.Errorf("%w %s: no manifest %q among %d", ErrNotInLayout, l.dir, name, len(index.Manifests))
}

// Tag makes name point at m; an empty name adds m without one.
func (l *Layout) Tag(name string, m registry.Descriptor) error {
	index, err := l.readIndex()
	if err != nil {
		return err
	}
	index.Manifests = slices.DeleteFunc(index.Manifests, func(old registry.Descriptor) bool {
		return old.Annotations[refName] == name
	})
	if name != "" {
		m.Annotations = map[string]string{refName: name}
	}
	index.Manifests = append(index.Manifests, m)
	return l.writeIndex(index)
}

func (l *Layout) readIndex() (layoutIndex, error) {
	var index layoutIndex
	b, err := os.ReadFile(filepath.Join(l.dir, "index.json"))
	if err != nil {
		return index, err
	}
	if err := json.Unmarshal(b, &index); err != nil {
		return index, fmt.Errorf("%s/index.json: %w", l.dir, err)
	}
	return index, nil
}

func (l *Layout) writeIndex(index layoutIndex) error {
	b, err := json.Marshal(index)
	if err != nil {
		return err
	}
	next := filepath.Join(l.dir, ".index.json.next")
	if err := os.WriteFile(next, b, 0o644); err != nil {
		return err
	}
	return os.Rename(next, filepath.Join(l.dir, "index.json"))
}

// add stores what write produces. Want, unless empty, is the digest it must
// have.
func (l *Layout) add(mediaType string, want ref.Digest, write func(io.Writer) error) (registry.Descriptor, error) {
	f, err := os.CreateTemp(l.dir, ".blob-*")
	if err != nil {
		return registry.Descriptor{}, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	algorithm := want
	if want == "" {
		algorithm = ref.SHA256
	}
	h := algorithm.Hash()
	if err := write(io.MultiWriter(f, h)); err != nil {
		return registry.Descriptor{}, err
	}
	d := ref.FromHash(h)
	if want != "" && d != want {
		return registry.Descriptor{}, fmt.Errorf("base image: got %s, want %s", d, want)
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return registry.Descriptor{}, err
	}
	path, err := l.path(d)
	if err != nil {
		return registry.Descriptor{}, err
	}
	if err := errors.Join(f.Chmod(0o644), os.MkdirAll(filepath.Dir(path), 0o755), os.Rename(f.Name(), path)); err != nil {
		return registry.Descriptor{}, err
	}
	return registry.Descriptor{MediaType: mediaType, Digest: d, Size: size}, nil
}

func (l *Layout) addBytes(mediaType string, b []byte) (registry.Descriptor, error) {
	return l.add(mediaType, "", func(w io.Writer) error { _, err := w.Write(b); return err })
}

// copyFrom stores a blob of a base image, unless the layout has it.
func (l *Layout) copyFrom(ctx context.Context, base Base, d registry.Descriptor) error {
	if l.Has(d.Digest) {
		return nil
	}
	r, err := base.Blob(ctx, d.Digest)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = l.add(d.MediaType, d.Digest, func(w io.Writer) error { _, err := io.Copy(w, r); return err })
	return err
}

// WriteTar writes the layout as a deterministic tar, the form that
// `docker load` and `ctr images import` read.
func (l *Layout) WriteTar(w io.Writer) error {
	var names []string
	err := filepath.WalkDir(l.dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	slices.Sort(names)
	out := tar.NewWriter(w)
	for _, path := range names {
		if err := l.tarFile(out, path); err != nil {
			return err
		}
	}
	return out.Close()
}

func (l *Layout) tarFile(out *tar.Writer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	name, err := filepath.Rel(l.dir, path)
	if err != nil {
		return err
	}
	if err := out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: st.Size()}); err != nil {
		return err
	}
	_, err = io.Copy(out, f)
	return err
}

// readAll reads a small blob, verified.
func readAll(ctx context.Context, base Base, d ref.Digest) ([]byte, error) {
	r, err := base.Blob(ctx, d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	const most = 4 << 20 // configs are kilobytes
	var b bytes.Buffer
	if _, err := io.Copy(&b, io.LimitReader(r, most)); err != nil {
		return nil, err
	}
	h := d.Hash()
	h.Write(b.Bytes())
	if ref.FromHash(h) != d {
		return nil, fmt.Errorf("base image: %s has other bytes", d)
	}
	return b.Bytes(), nil
}
