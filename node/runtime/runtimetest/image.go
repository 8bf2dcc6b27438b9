package runtimetest

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// ImageRef is the name of the suite's image.
const ImageRef = "conformance.test/app:1"

var program = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "rtt-app-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	bin := filepath.Join(dir, "app")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", bin, "appliance/node/runtime/runtimetest/app/program")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, err
	}
	return os.ReadFile(bin)
})

// Blobs is an image in pieces, for tests that serve it themselves.
type Blobs struct {
	Layer, Config, Manifest []byte
}

// Digest is a blob's digest.
func Digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Image builds the suite's image: the program alone, from scratch.
func Image(t testing.TB) Blobs { return imageOf(t, nil) }

// imageOf is Image with more files.
func imageOf(t testing.TB, more map[string][]byte) Blobs {
	t.Helper()
	bin, err := program()
	if err != nil {
		t.Fatal("build the image's program:", err)
	}
	files := map[string][]byte{"app": bin, "etc/passwd": []byte("root:x:0:0::/:\nweb:x:1234:1234::/:\n"),
		"etc/group": []byte("root:x:0:\nweb:x:1234:\n"), "tmp/": nil}
	maps.Copy(files, more)
	layer := tarball(t, files)
	config := marshal(t, map[string]any{
		"architecture": goarch(t), "os": "linux",
		"config": map[string]any{"Entrypoint": []string{"/app"}, "Cmd": []string{"exit", "3"}, "WorkingDir": "/tmp",
			"Env": []string{"PATH=/", "FROM_IMAGE=yes", "BOTH=image"}, "ExposedPorts": map[string]any{"8080/tcp": struct{}{}}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{Digest(layer)}},
	})
	manifest := marshal(t, map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": descriptor("application/vnd.oci.image.config.v1+json", config),
		"layers": []any{descriptor("application/vnd.oci.image.layer.v1.tar", layer)},
	})
	return Blobs{Layer: layer, Config: config, Manifest: manifest}
}

func goarch(t testing.TB) string {
	out, err := exec.Command("go", "env", "GOARCH").Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimSpace(out))
}

func descriptor(mediaType string, b []byte) map[string]any {
	return map[string]any{"mediaType": mediaType, "digest": Digest(b), "size": len(b)}
}

// DockerArchive is what `docker save` writes.
func DockerArchive(t testing.TB, b Blobs, ref string) []byte {
	config := Digest(b.Config)[7:] + ".json"
	manifest := marshal(t, []any{map[string]any{"Config": config, "RepoTags": []string{ref}, "Layers": []string{"layer.tar"}}})
	return tarball(t, map[string][]byte{"manifest.json": manifest, config: b.Config, "layer.tar": b.Layer})
}

// OCILayout is an OCI image layout; with an empty ref it has no name.
func OCILayout(t testing.TB, b Blobs, ref string) []byte {
	desc := descriptor("application/vnd.oci.image.manifest.v1+json", b.Manifest)
	if ref != "" {
		desc["annotations"] = map[string]string{"org.opencontainers.image.ref.name": ref}
	}
	files := map[string][]byte{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`),
		"index.json": marshal(t, map[string]any{"schemaVersion": 2, "manifests": []any{desc}})}
	for _, blob := range [][]byte{b.Layer, b.Config, b.Manifest} {
		files["blobs/sha256/"+Digest(blob)[7:]] = blob
	}
	return tarball(t, files)
}

func marshal(t testing.TB, v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func tarball(t testing.TB, files map[string][]byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, name := range sortedNames(files) {
		h := &tar.Header{Name: name, Mode: 0o755, Size: int64(len(files[name])), Typeflag: tar.TypeReg}
		if name[len(name)-1] == '/' {
			h.Typeflag, h.Mode = tar.TypeDir, 0o1777
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(files[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}
