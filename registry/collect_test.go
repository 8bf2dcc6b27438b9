package registry

import (
	"testing"
	"time"

	"appliance/registry/blob"
	"appliance/registry/gc"
)

// input is what a node's replicated state says.
func (f *fixture) input(now time.Time) gc.Input {
	f.t.Helper()
	in := gc.Input{Now: now}
	repos, _ := f.index.Repositories(f.t.Context())
	for _, repo := range repos {
		tags, _ := f.index.Tags(f.t.Context(), repo)
		for _, tag := range tags {
			in.Tags = append(in.Tags, tag.Keeps(repo)...)
		}
		for _, m := range f.index.repos[repo].manifests {
			in.Manifests = append(in.Manifests, m.Garbage())
		}
	}
	return in
}

func TestSweepWhilePushing(t *testing.T) {
	f := newFixture(t, nil)
	kept := f.pushImage("a", "v1", "kept")
	f.pushImage("b", "v1", "gone")
	lost := f.push("a", []byte("never referred to"))
	later := time.Now().Add(2 * gc.Grace)

	f.want(f.do("DELETE", "/v2/b/manifests/v1", nil), 202, "")
	plan, n, err := Sweep(t.Context(), f.store, f.input(later))
	if err != nil || n != 1 || len(plan.Manifests) != 1 || plan.Manifests[0].Repository != "b" {
		t.Fatalf("%+v %d %v", plan, n, err)
	}
	if _, err := f.store.Stat(lost); err == nil {
		t.Fatal("an old unreferenced blob stays")
	}
	for _, m := range plan.Manifests {
		f.index.DeleteManifest(t.Context(), m.Repository, m.Digest)
	}
	if _, n, err = Sweep(t.Context(), f.store, f.input(later)); err != nil || n != 3 {
		t.Fatal("config, layer and bytes of the manifest:", n, err)
	}
	f.want(f.do("GET", "/v2/a/manifests/"+string(kept), nil), 200, "")

	// The case that corrupts other registries: what was collected is pushed
	// again to the running registry.
	f.pushImage("b", "v1", "gone")
	m, err := f.index.Manifest(t.Context(), "b", "v1")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range append(m.Blobs, m.Digest) {
		f.want(f.do("GET", "/v2/b/blobs/"+string(d), nil), 200, "")
	}
}

func TestHeadKeepsABlobFromTheSweep(t *testing.T) {
	now := time.Now()
	store, err := blob.New(t.TempDir(), blob.Options{Reserve: func(blob.Space) int64 { return 0 }, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	f := newFixture(t, func(c *Config) { c.Uploads, c.Blobs = store, Local{store} })
	d := f.push("a", []byte("layer"))
	now = now.Add(2 * gc.Grace)
	// A client that is told that the layer is here does not upload it.
	f.want(f.do("HEAD", "/v2/a/blobs/"+string(d), nil), 200, "")
	if _, n, err := Sweep(t.Context(), store, gc.Input{Now: now.Add(gc.Grace / 2)}); n != 0 || err != nil {
		t.Fatal(n, err)
	}
	if _, n, err := Sweep(t.Context(), store, gc.Input{Now: now.Add(2 * gc.Grace)}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
}
