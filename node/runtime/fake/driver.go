package fake

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"appliance/node/runtime"
	"appliance/node/runtime/logs"
)

// Runtime is a driver on an Engine.
type Runtime struct{ e *Engine }

// Name is "fake".
func (r *Runtime) Name() string { return "fake" }

// Close does nothing: containers go on.
func (r *Runtime) Close() error { return nil }

// Info claims the network modes and nothing of the kernel.
func (r *Runtime) Info(ctx context.Context) (runtime.Info, error) {
	if err := r.failing("Info"); err != nil {
		return runtime.Info{}, err
	}
	return runtime.Info{Name: "fake", Version: "1", Features: runtime.Features{KeepsExits: true}}, nil
}

func (r *Runtime) failing(op string) error {
	r.e.mu.Lock()
	defer r.e.mu.Unlock()
	return r.e.fail[op]
}

func canonical(ref string) string {
	p, err := runtime.ParseRef(ref)
	if err != nil {
		panic("fake: " + err.Error()) // a test's mistake
	}
	return p.String()
}

func (e *Engine) addImage(ref string) runtime.Image {
	key := canonical(ref)
	if img, ok := e.images[key]; ok {
		return img
	}
	p, _ := runtime.ParseRef(ref)
	sum := sha256.Sum256([]byte(key))
	img := runtime.Image{Ref: key, Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: 1 << 20, Created: time.Now()}
	if p.Digest != "" {
		img.Digest = p.Digest
	}
	e.images[key] = img
	return img
}

// Pull adds the image unless Remote forbids it.
func (r *Runtime) Pull(ctx context.Context, ref string, opts runtime.PullOptions) (runtime.Image, error) {
	if err := r.failing("Pull"); err != nil {
		return runtime.Image{}, err
	}
	if _, err := runtime.ParseRef(ref); err != nil {
		return runtime.Image{}, err
	}
	r.e.mu.Lock()
	delay := r.e.pullDelay
	img, have := r.e.images[canonical(ref)]
	r.e.mu.Unlock()
	if have {
		return img, nil
	}
	if delay > 0 {
		select {
		case <-ctx.Done():
			return runtime.Image{}, ctx.Err()
		case <-time.After(delay):
		}
	}
	r.e.mu.Lock()
	defer r.e.mu.Unlock()
	if r.e.remote != nil && !r.e.remote[canonical(ref)] {
		return runtime.Image{}, runtime.Fail(runtime.ErrImageNotFound, nil, "pull %s", ref)
	}
	r.e.pulls++
	img = r.e.addImage(ref)
	if opts.Progress != nil {
		opts.Progress(runtime.Progress{Done: img.Size, Total: img.Size})
	}
	return img, nil
}

// Import takes the stream's first line as a reference.
func (r *Runtime) Import(ctx context.Context, in io.Reader) ([]runtime.Image, error) {
	b, err := io.ReadAll(io.LimitReader(in, 1<<10))
	if err != nil {
		return nil, err
	}
	ref, _, _ := strings.Cut(string(b), "\n")
	if _, err := runtime.ParseRef(ref); err != nil {
		return nil, err
	}
	r.e.mu.Lock()
	defer r.e.mu.Unlock()
	return []runtime.Image{r.e.addImage(ref)}, nil
}

// Images lists by reference.
func (r *Runtime) Images(ctx context.Context) ([]runtime.Image, error) {
	r.e.mu.Lock()
	defer r.e.mu.Unlock()
	var out []runtime.Image
	for _, img := range r.e.images {
		out = append(out, img)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Ref < out[j].Ref })
	return out, nil
}

// RemoveImage forgets the image.
func (r *Runtime) RemoveImage(ctx context.Context, ref string) error {
	if _, err := runtime.ParseRef(ref); err != nil {
		return err
	}
	r.e.mu.Lock()
	defer r.e.mu.Unlock()
	delete(r.e.images, canonical(ref))
	return nil
}

// Create takes the ports at once, so that a collision shows before Start.
func (r *Runtime) Create(ctx context.Context, spec runtime.ContainerSpec) error {
	if err := r.failing("Create"); err != nil {
		return err
	}
	if err := spec.Validate(); err != nil {
		return err
	}
	e := r.e
	e.mu.Lock()
	defer e.mu.Unlock()
	if c, ok := e.containers[spec.ID]; ok {
		if c.spec.Hash() == spec.Hash() {
			return nil
		}
		return runtime.Fail(runtime.ErrConflict, nil, "create container %s", spec.ID)
	}
	if _, ok := e.images[canonical(spec.Image)]; !ok {
		return runtime.Fail(runtime.ErrImageNotFound, nil, "create container %s: %s", spec.ID, spec.Image)
	}
	for _, p := range spec.Ports {
		if owner, ok := e.ports[portKey(p)]; ok {
			return runtime.Fail(runtime.ErrPortInUse, fmt.Errorf("port %d/%s belongs to %s", p.HostPort, p.ProtocolOrDefault(), owner), "create container %s", spec.ID)
		}
	}
	for _, p := range spec.Ports {
		e.ports[portKey(p)] = spec.ID
	}
	ctx, cancel := context.WithCancel(context.Background())
	e.containers[spec.ID] = &container{
		spec: spec, limits: spec.Resources, state: runtime.StateCreated, created: time.Now(), ctx: ctx, cancel: cancel,
		exited: make(chan struct{}), signals: make(chan runtime.Signal, 8),
	}
	return nil
}

func portKey(p runtime.PortMapping) runtime.PortMapping {
	return runtime.PortMapping{HostPort: p.HostPort, Protocol: p.ProtocolOrDefault()}
}

func appendFile(dir, name string) (io.WriteCloser, error) {
	return os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) Close() error                { return nil }

// Logs reads the files in the spec's LogDir.
func (r *Runtime) Logs(ctx context.Context, id string, opts runtime.LogOptions) error {
	c, err := r.get(id)
	if err != nil {
		return err
	}
	if c.spec.LogDir == "" {
		return nil
	}
	return logs.Copy(ctx, c.spec.LogDir, opts, c.exited)
}
