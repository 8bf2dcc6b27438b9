package registry

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"appliance/registry/ref"
)

// Memory is an Index in memory, for tests and for a registry that stands
// alone. The zero value is ready and safe for concurrent use.
type Memory struct {
	mu    sync.RWMutex
	repos map[string]*memoryRepo
}

type memoryRepo struct {
	manifests map[ref.Digest]Manifest
	tags      map[string]Tag
}

// find is called with the lock held.
func (m *Memory) find(repository string) (*memoryRepo, error) {
	r, ok := m.repos[repository]
	if !ok {
		return nil, fmt.Errorf("%w: %s", ErrNameUnknown, repository)
	}
	return r, nil
}

// Manifest implements IndexReader.
func (m *Memory) Manifest(_ context.Context, repository, reference string) (Manifest, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	r, err := m.find(repository)
	if err != nil {
		return Manifest{}, err
	}
	d := ref.Digest(reference)
	if tag, ok := r.tags[reference]; ok {
		d = tag.Digest
	}
	found, ok := r.manifests[d]
	if !ok {
		return Manifest{}, fmt.Errorf("%w: %s in %s", ErrManifestUnknown, reference, repository)
	}
	return found, nil
}

// Tags implements IndexReader.
func (m *Memory) Tags(_ context.Context, repository string) ([]Tag, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	r, err := m.find(repository)
	if err != nil {
		return nil, err
	}
	return slices.Collect(maps.Values(r.tags)), nil
}

// Repositories implements IndexReader.
func (m *Memory) Repositories(context.Context) ([]string, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return slices.Collect(maps.Keys(m.repos)), nil
}

// Referrers implements IndexReader.
func (m *Memory) Referrers(_ context.Context, repository string, subject ref.Digest) ([]Manifest, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	r, err := m.find(repository)
	if err != nil {
		return nil, err
	}
	var found []Manifest
	for _, manifest := range r.manifests {
		if manifest.Subject == subject {
			found = append(found, manifest)
		}
	}
	return found, nil
}

// PutManifest implements IndexWriter.
func (m *Memory) PutManifest(_ context.Context, manifest Manifest, tag string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.repos[manifest.Repository]
	if !ok {
		r = &memoryRepo{map[ref.Digest]Manifest{}, map[string]Tag{}}
		if m.repos == nil {
			m.repos = map[string]*memoryRepo{}
		}
		m.repos[manifest.Repository] = r
	}
	if _, known := r.manifests[manifest.Digest]; !known {
		r.manifests[manifest.Digest] = manifest
	}
	if tag != "" {
		r.tags[tag] = r.tags[tag].Moved(tag, TagMove{manifest.Digest, manifest.PushedBy, manifest.PushedAt})
	}
	return nil
}

// Moved returns the tag after a move. A move to where it points already
// changes nothing.
func (t Tag) Moved(name string, to TagMove) Tag {
	if t.Digest == to.Digest {
		return t
	}
	history := append([]TagMove{to}, t.History...)
	return Tag{Name: name, Digest: to.Digest, History: history[:min(len(history), MaxTagHistory)]}
}

// DeleteManifest implements IndexWriter.
func (m *Memory) DeleteManifest(_ context.Context, repository string, d ref.Digest) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, err := m.find(repository)
	if err != nil {
		return err
	}
	if _, ok := r.manifests[d]; !ok {
		return fmt.Errorf("%w: %s in %s", ErrManifestUnknown, d, repository)
	}
	delete(r.manifests, d)
	maps.DeleteFunc(r.tags, func(_ string, t Tag) bool { return t.Digest == d })
	if len(r.manifests) == 0 {
		delete(m.repos, repository)
	}
	return nil
}

// Tag implements IndexWriter.
func (m *Memory) Tag(_ context.Context, repository, tag string, d ref.Digest) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, err := m.find(repository)
	if err != nil {
		return err
	}
	if _, ok := r.manifests[d]; !ok {
		return fmt.Errorf("%w: %s in %s", ErrManifestUnknown, d, repository)
	}
	r.tags[tag] = r.tags[tag].Moved(tag, TagMove{Digest: d, At: time.Now()})
	return nil
}

// Untag implements IndexWriter.
func (m *Memory) Untag(_ context.Context, repository, tag string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, err := m.find(repository)
	if err != nil {
		return err
	}
	if _, ok := r.tags[tag]; !ok {
		return fmt.Errorf("%w: %s in %s", ErrManifestUnknown, tag, repository)
	}
	delete(r.tags, tag)
	return nil
}
