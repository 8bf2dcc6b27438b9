package runtimetest

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"appliance/node/runtime"
)

var engineTests = map[string]func(*testing.T, *suite){
	"PullByDigest":  testPull,
	"PullMissing":   testPullMissing,
	"ImagesAndGone": testImages,
}

// Registry serves one image on loopback and counts blob transfers.
func Registry(t testing.TB, b Blobs, repo string) (host string, blobs *atomic.Int64) {
	content := map[string][]byte{
		"/v2/": []byte("{}"),
		"/v2/" + repo + "/manifests/" + Digest(b.Manifest): b.Manifest,
		"/v2/" + repo + "/manifests/v1":                    b.Manifest,
		"/v2/" + repo + "/blobs/" + Digest(b.Config):       b.Config,
		"/v2/" + repo + "/blobs/" + Digest(b.Layer):        b.Layer,
	}
	blobs = &atomic.Int64{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, ok := content[r.URL.Path]
		if !ok {
			http.Error(w, `{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`, http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		w.Header().Set("Docker-Content-Digest", Digest(body))
		if strings.Contains(r.URL.Path, "/blobs/") {
			w.Header().Set("Content-Type", "application/octet-stream")
			if r.Method == http.MethodGet {
				blobs.Add(1)
			}
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://"), blobs
}

func testPull(t *testing.T, s *suite) {
	s.needs(t, s.info.Features.Processes, "registry client")
	image := Image(t)
	host, _ := Registry(t, image, "team/app")
	ref := host + "/team/app@" + Digest(image.Manifest)
	var progress atomic.Int64
	var g errgroup.Group
	for range 3 {
		g.Go(func() error {
			img, err := s.rt.Pull(ctx(t), ref, runtime.PullOptions{Progress: func(p runtime.Progress) { progress.Add(1) }})
			if err == nil && img.Digest != Digest(image.Manifest) {
				t.Errorf("pulled %+v", img)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if progress.Load() == 0 {
		t.Error("no progress was reported")
	}
	spec := s.spec(t, "exit", "11")
	spec.Image = ref
	if exit, _, _ := s.run(t, spec); exit.Code != 11 {
		t.Errorf("%v, want exit code 11", exit)
	}
}

func testPullMissing(t *testing.T, s *suite) {
	s.needs(t, s.info.Features.Processes, "registry client")
	host, _ := Registry(t, Image(t), "team/app")
	if _, err := s.rt.Pull(ctx(t), host+"/team/app:nothing", runtime.PullOptions{}); !errors.Is(err, runtime.ErrImageNotFound) {
		t.Errorf("%v, want ErrImageNotFound", err)
	}
	if _, err := s.rt.Pull(ctx(t), "127.0.0.1:1/team/app:v1", runtime.PullOptions{}); !errors.Is(err, runtime.ErrUnavailable) {
		t.Errorf("%v, want ErrUnavailable", err)
	}
}

func testImages(t *testing.T, s *suite) {
	has := func() bool {
		list, err := s.rt.Images(ctx(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, img := range list {
			if img.Ref == ImageRef {
				if img.Digest == "" || img.Size == 0 {
					t.Errorf("%+v", img)
				}
				return true
			}
		}
		return false
	}
	if !has() {
		t.Fatal("the image is not listed")
	}
	for range 2 {
		if err := s.rt.RemoveImage(ctx(t), ImageRef); err != nil {
			t.Fatal(err)
		}
	}
	if has() {
		t.Error("the image is still listed")
	}
	s.load(t)
}
