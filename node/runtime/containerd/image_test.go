package containerd

import (
	"bytes"
	"testing"

	"appliance/node/runtime"
	"appliance/node/runtime/runtimetest"
)

func openEmpty(t *testing.T) *Runtime {
	t.Helper()
	rt, err := Open(t.Context(), testConfig(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rt.Close(); err != nil {
			t.Error(err)
		}
	})
	return rt
}

func TestImportOCILayout(t *testing.T) {
	blobs := runtimetest.Image(t)
	digest := runtimetest.Digest(blobs.Manifest)
	for _, tc := range []struct{ name, ref, want string }{
		{"named", "registry.test/team/app:v1", "registry.test/team/app:v1"},
		{"bare tag", "v1", "import.local/image@" + digest},
		{"nameless", "", "import.local/image@" + digest},
	} {
		t.Run(tc.name, func(t *testing.T) {
			rt := openEmpty(t)
			imgs, err := rt.Import(t.Context(), bytes.NewReader(runtimetest.OCILayout(t, blobs, tc.ref)))
			if err != nil || len(imgs) != 1 || imgs[0].Ref != tc.want || imgs[0].Digest != digest {
				t.Fatalf("%+v, %v", imgs, err)
			}
			// The digest decides, whatever the name.
			if err := rt.Create(t.Context(), runtime.ContainerSpec{ID: "c", Image: "127.0.0.1:5000/other@" + digest}); err != nil {
				t.Error(err)
			}
			if err := rt.Remove(t.Context(), "c"); err != nil {
				t.Error(err)
			}
		})
	}
	if _, err := openEmpty(t).Import(t.Context(), bytes.NewReader([]byte("not a tar"))); err == nil {
		t.Error("imported rubbish")
	}
}

// The node's registry endpoint serves images of any name.
func TestPullThroughEndpoint(t *testing.T) {
	rt := openEmpty(t)
	blobs := runtimetest.Image(t)
	host, transfers := runtimetest.Registry(t, blobs, "team/app")
	ref := "registry.cluster:5000/team/app@" + runtimetest.Digest(blobs.Manifest)
	var last [2]runtime.Progress
	for i := range last {
		img, err := rt.Pull(t.Context(), ref, runtime.PullOptions{Endpoint: host, Progress: func(p runtime.Progress) { last[i] = p }})
		if err != nil || img.Ref != ref {
			t.Fatalf("%+v, %v", img, err)
		}
	}
	if transfers.Load() != 2 {
		t.Errorf("%d blobs were sent, want the layer and the configuration once", transfers.Load())
	}
	for i, least := range []int{len(blobs.Layer), 1} { // the second time the layer is here
		if p := last[i]; p.Total < int64(least) || p.Done != p.Total {
			t.Errorf("progress of pull %d ended at %+v", i+1, p)
		}
	}
	if err := rt.RemoveImage(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	if imgs, err := rt.Images(t.Context()); err != nil || len(imgs) != 0 {
		t.Errorf("%+v, %v", imgs, err)
	}
}
