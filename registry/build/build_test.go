package build

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"appliance/registry"
	"appliance/registry/blob"
	"appliance/registry/client"
	"appliance/registry/ref"
)

// buildContext writes files; names that end in "*" are executable, values that begin
// with "->" are symbolic links.
func buildContext(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		mode := os.FileMode(0o640)
		if n, ok := strings.CutSuffix(name, "*"); ok {
			name, mode = n, 0o700
		}
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(content, "->"); ok {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, []byte(content), mode)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func newLayout(t *testing.T) *Layout {
	t.Helper()
	l, err := CreateLayout(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func load[T any](t *testing.T, l *Layout, d ref.Digest) T {
	t.Helper()
	var v T
	r, err := l.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := json.NewDecoder(r).Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// contents lists a layer as "mode uid:gid name content".
func contents(t *testing.T, l *Layout, d ref.Digest) []string {
	t.Helper()
	r, err := l.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	z, err := gzip.NewReader(r)
	if err != nil {
		t.Fatal(err)
	}
	if !z.ModTime.IsZero() || z.Name != "" {
		t.Fatal("gzip header depends on the build:", z.Header)
	}
	var list []string
	for tr := tar.NewReader(z); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(tr)
		text := h.FileInfo().Mode().String() + " " + h.Name
		if h.Linkname != "" {
			text += " -> " + h.Linkname
		} else if len(b) > 0 {
			text += " " + string(b)
		}
		if h.Uid != 0 || h.Gid != 0 {
			text += " owned"
		}
		if h.ModTime.Unix() != 0 || h.Uname != "" {
			t.Fatal("entry depends on the build:", h)
		}
		list = append(list, text)
	}
}

var files = map[string]string{"app*": "binary", "static/b.css": "b", "static/a.js": "a", "static/link": "->a.js", "static/sub/deep": "d"}

func testSpec(dir string) Spec {
	return Spec{Context: dir,
		Copies: []Copy{{Sources: []string{"app"}, To: "/"}, {Sources: []string{"static"}, To: "/srv/static", UID: 7, GID: 8}},
		Config: Config{Entrypoint: []string{"/app"}, Env: []string{"A=1"}, Ports: []string{"8000"}, Labels: map[string]string{"l": "v"}, User: "65534", WorkingDir: "/srv"}}
}

func TestBuildOnScratch(t *testing.T) {
	l := newLayout(t)
	d, err := Build(t.Context(), testSpec(buildContext(t, files)), l)
	if err != nil {
		t.Fatal(err)
	}
	m := load[registry.Document](t, l, d.Digest)
	if len(m.Layers) != 3 || m.Annotations["org.opencontainers.image.created"] != "" {
		t.Fatalf("%+v", m)
	}
	for i, want := range [][]string{
		{"drwxr-xr-x etc/", "-rw-r--r-- etc/group", "-rw-r--r-- etc/nsswitch.conf", "-rw-r--r-- etc/passwd", "drwx------ root/", "dtrwxrwxrwx tmp/", "drwxr-xr-x srv/"},
		{"-rwxr-xr-x app binary"},
		{"drwxr-xr-x srv/", "drwxr-xr-x srv/static/ owned", "-rw-r--r-- srv/static/a.js a owned", "-rw-r--r-- srv/static/b.css b owned",
			"Lrwxrwxrwx srv/static/link -> a.js owned", "drwxr-xr-x srv/static/sub/ owned", "-rw-r--r-- srv/static/sub/deep d owned"},
	} {
		got := contents(t, l, m.Layers[i].Digest)
		if i == 0 {
			for j := range got {
				got[j] = strings.Join(strings.Fields(got[j])[:2], " ")
			}
			got = slices.DeleteFunc(got, func(s string) bool { return !slices.Contains(want, s) })
		}
		if !slices.Equal(got, want) {
			t.Errorf("layer %d:\n%s\nwant\n%s", i, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	img := load[image](t, l, m.Config.Digest)
	want := runConfig{User: "65534", ExposedPorts: map[string]struct{}{"8000/tcp": {}}, Env: []string{defaultPath, "A=1"}, Entrypoint: []string{"/app"}, WorkingDir: "/srv", Labels: map[string]string{"l": "v"}}
	if !reflect.DeepEqual(img.Config, want) || len(img.RootFS.DiffIDs) != 3 || img.OS != "linux" || img.Architecture != "amd64" || img.Created != nil {
		t.Fatalf("%+v", img)
	}
}

func TestSameInputSameDigest(t *testing.T) {
	var digests []ref.Digest
	for _, umask := range []os.FileMode{0o600, 0o644} {
		dir := buildContext(t, files)
		later := time.Now().Add(time.Duration(umask) * time.Hour)
		os.Chmod(filepath.Join(dir, "static/a.js"), umask)
		os.Chtimes(filepath.Join(dir, "app"), later, later)
		spec := testSpec(dir)
		d, err := Build(t.Context(), spec, newLayout(t))
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, d.Digest)
	}
	if digests[0] != digests[1] {
		t.Fatal("two builds differ:", digests)
	}
	spec := testSpec(buildContext(t, files))
	spec.Created = time.Unix(1700000000, 0)
	l := newLayout(t)
	d, err := Build(t.Context(), spec, l)
	if err != nil || d.Digest == digests[0] {
		t.Fatal("SOURCE_DATE_EPOCH has no effect", err)
	}
	if m := load[registry.Document](t, l, d.Digest); m.Annotations["org.opencontainers.image.created"] != "2023-11-14T22:13:20Z" {
		t.Fatal(m.Annotations)
	}
}

func TestBuildOnBase(t *testing.T) {
	base := newLayout(t)
	spec := testSpec(buildContext(t, files))
	spec.Config.Cmd = []string{"serve"}
	d, err := Build(t.Context(), spec, base)
	if err != nil {
		t.Fatal(err)
	}
	// Behind an index with two platforms.
	arm := d
	arm.Platform = &registry.Platform{OS: "linux", Architecture: "arm64"}
	index, _ := json.Marshal(registry.Document{SchemaVersion: 2, MediaType: registry.MediaIndex, Manifests: []registry.Descriptor{arm, d}})
	at, err := base.addBytes(registry.MediaIndex, index)
	if err != nil {
		t.Fatal(err)
	}
	base.Tag("v1", at)

	store, _ := blob.New(t.TempDir(), blob.Options{Reserve: func(blob.Space) int64 { return 0 }})
	server := httptest.NewServer(registry.New(registry.Config{Blobs: registry.Local{Store: store}, Uploads: store, Index: &registry.Memory{}, Authorize: registry.AllowAll}))
	defer server.Close()
	c := &client.Client{Base: server.URL}
	// Only the amd64 child can be pushed: the other has the same digest here.
	if err := c.Push(t.Context(), base, at, "base", "v1", nil); err != nil {
		t.Fatal(err)
	}

	var digests []ref.Digest
	for name, from := range map[string]Base{"layout": LayoutBase(base, "v1"), "registry": RegistryBase(c, "base", "v1")} {
		t.Run(name, func(t *testing.T) {
			out := newLayout(t)
			got, err := Build(t.Context(), Spec{Base: from, BaseName: "base:v1", Context: buildContext(t, map[string]string{"new": "n"}),
				Copies: []Copy{{Sources: []string{"new"}, To: "/srv/"}}, Config: Config{Env: []string{"A=2", "B=3"}}}, out)
			if err != nil {
				t.Fatal(err)
			}
			m := load[registry.Document](t, out, got.Digest)
			img := load[image](t, out, m.Config.Digest)
			if len(m.Layers) != 4 || len(img.RootFS.DiffIDs) != 4 || !slices.Equal(img.Config.Env, []string{defaultPath, "A=2", "B=3"}) ||
				!slices.Equal(img.Config.Cmd, []string{"serve"}) || img.Config.User != "65534" ||
				m.Annotations["org.opencontainers.image.base.digest"] != string(d.Digest) || m.Annotations["org.opencontainers.image.base.name"] != "base:v1" {
				t.Fatalf("%+v\n%+v", m, img)
			}
			for _, l := range m.Layers {
				if !out.Has(l.Digest) {
					t.Fatal("missing", l.Digest)
				}
			}
			digests = append(digests, got.Digest)
		})
	}
	if digests[0] != digests[1] {
		t.Fatal("the base's origin changes the digest")
	}
	_, err = Build(t.Context(), Spec{Base: LayoutBase(base, "v1"), Architecture: "riscv64"}, newLayout(t))
	if err == nil || !strings.Contains(err.Error(), "no variant for linux/riscv64 among 2") {
		t.Fatal(err)
	}
}

func TestBuildRefusals(t *testing.T) {
	dir := buildContext(t, map[string]string{"a": "1", "b/a": "2", "c/.dockerignore": "x", "out": "->/etc/passwd", "outdir": "->/etc"})
	for name, tc := range map[string]struct {
		change func(*Spec)
		want   string
	}{
		"nothing":             {func(s *Spec) { s.Copies = nil }, "at least one file"},
		"missing file":        {func(s *Spec) { s.Copies[0].Sources = []string{"nope"} }, `"nope" in the build context`},
		"out of the context":  {func(s *Spec) { s.Copies[0].Sources = []string{"../x"} }, "leaves the build context"},
		"link out":            {func(s *Spec) { s.Copies[0].Sources = []string{"outdir/passwd"} }, "outdir/passwd"},
		"two files, one name": {func(s *Spec) { s.Copies[0].Sources = []string{"a", "b/a"} }, "both go to /a"},
		"dockerignore":        {func(s *Spec) { s.Copies[0].Sources = []string{"c"} }, "not supported"},
		"no file name":        {func(s *Spec) { s.Copies[0].To = "" }, "add a name or a slash"},
		"relative workdir":    {func(s *Spec) { s.Config.WorkingDir = "x" }, "absolute"},
		"bad env":             {func(s *Spec) { s.Config.Env = []string{"A"} }, "NAME=value"},
		"bad port":            {func(s *Spec) { s.Config.Ports = []string{"70000"} }, "1-65535"},
		"no certificates":     {func(s *Spec) { s.Certificates = "/does/not/exist" }, "/does/not/exist"},
	} {
		t.Run(name, func(t *testing.T) {
			spec := Spec{Context: dir, Copies: []Copy{{Sources: []string{"a"}, To: "/"}}}
			tc.change(&spec)
			l := newLayout(t)
			_, err := Build(t.Context(), spec, l)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want %q", err, tc.want)
			}
			left, _ := filepath.Glob(filepath.Join(l.dir, ".*"))
			if len(left) != 0 {
				t.Fatal("left behind:", left)
			}
		})
	}
}

func TestTarIsDeterministic(t *testing.T) {
	var sums []ref.Digest
	for range 2 {
		l := newLayout(t)
		d, err := Build(t.Context(), testSpec(buildContext(t, files)), l)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Tag("v1", d); err != nil {
			t.Fatal(err)
		}
		h := d.Digest.Hash()
		if err := l.WriteTar(h); err != nil {
			t.Fatal(err)
		}
		sums = append(sums, ref.FromHash(h))
		if again, err := OpenLayout(l.dir); err != nil {
			t.Fatal(err)
		} else if got, err := again.Resolve("v1"); err != nil || got.Digest != d.Digest {
			t.Fatal(got, err)
		}
	}
	if sums[0] != sums[1] {
		t.Fatal("two tars differ")
	}
}
