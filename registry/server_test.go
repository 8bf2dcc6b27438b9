package registry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"appliance/registry/blob"
	"appliance/registry/ref"
)

// fixture is a registry on a real server, and a client that fails the test.
type fixture struct {
	t     testing.TB
	url   string
	store *blob.Store
	index *Memory
}

func newFixture(t testing.TB, change func(*Config)) *fixture {
	t.Helper()
	store, err := blob.New(t.TempDir(), blob.Options{MaxBlob: 256 << 20, Reserve: func(blob.Space) int64 { return 0 }})
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, store: store, index: &Memory{}}
	c := Config{Blobs: Local{store}, Uploads: store, Index: f.index, Authorize: AllowAll, DeleteBlobs: true}
	if change != nil {
		change(&c)
	}
	server := httptest.NewServer(New(c))
	t.Cleanup(server.Close)
	f.url = server.URL
	return f
}

type reply struct {
	status int
	header http.Header
	body   []byte
}

// do sends a request; headers are "Name: value".
func (f *fixture) do(method, path string, body []byte, headers ...string) reply {
	f.t.Helper()
	url := path
	if strings.HasPrefix(path, "/") {
		url = f.url + path
	}
	req, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		f.t.Fatal(err)
	}
	for _, h := range headers {
		if name, value, ok := strings.Cut(h, ": "); ok {
			req.Header.Set(name, value)
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, b}
}

func (f *fixture) want(r reply, status int, code string) reply {
	f.t.Helper()
	if r.status != status {
		f.t.Fatalf("status %d, want %d: %s", r.status, status, r.body)
	}
	if code != "" {
		var e struct {
			Errors []struct{ Code, Message string }
		}
		if err := json.Unmarshal(r.body, &e); err != nil || len(e.Errors) != 1 || e.Errors[0].Code != code || e.Errors[0].Message == "" {
			f.t.Fatalf("want error %s, got %s", code, r.body)
		}
	}
	return r
}

func (f *fixture) push(repo string, body []byte) ref.Digest {
	f.t.Helper()
	d := ref.FromBytes(body)
	f.want(f.do("POST", "/v2/"+repo+"/blobs/uploads/?digest="+string(d), body), 201, "")
	return d
}

func descriptor(mediaType string, b []byte) Descriptor {
	return Descriptor{MediaType: mediaType, Digest: ref.FromBytes(b), Size: int64(len(b))}
}

// image pushes a config and a layer and returns the manifest, not yet pushed.
func (f *fixture) image(repo, seed string) []byte {
	f.t.Helper()
	config, layer := []byte(`{"seed":"`+seed+`"}`), []byte("layer "+seed)
	f.push(repo, config)
	f.push(repo, layer)
	c := descriptor("application/vnd.oci.image.config.v1+json", config)
	b, _ := json.Marshal(Document{SchemaVersion: 2, MediaType: MediaManifest, Config: &c, Layers: []Descriptor{descriptor("application/vnd.oci.image.layer.v1.tar", layer)}})
	return b
}

func (f *fixture) pushImage(repo, tag, seed string) ref.Digest {
	f.t.Helper()
	body := f.image(repo, seed)
	f.want(f.do("PUT", "/v2/"+repo+"/manifests/"+tag, body, "Content-Type: "+MediaManifest), 201, "")
	return ref.FromBytes(body)
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

func TestPing(t *testing.T) {
	f := newFixture(t, nil)
	for _, path := range []string{"/v2/", "/v2"} {
		r := f.want(f.do("GET", path, nil), 200, "")
		if r.header.Get("Docker-Distribution-Api-Version") != "registry/2.0" {
			t.Fatal(r.header)
		}
	}
}

func TestBlobReads(t *testing.T) {
	f := newFixture(t, nil)
	body := randomBytes(5<<20 + 1)
	d := f.push("team/app", body)
	path := "/v2/team/app/blobs/" + string(d)
	for name, tc := range map[string]struct {
		method, header string
		status         int
		body           []byte
	}{
		"head":               {"HEAD", "", 200, nil},
		"whole":              {"GET", "", 200, body},
		"range":              {"GET", "Range: bytes=10-19", 206, body[10:20]},
		"open range":         {"GET", "Range: bytes=5242880-", 206, body[5<<20:]},
		"suffix range":       {"GET", "Range: bytes=-7", 206, body[len(body)-7:]},
		"range past the end": {"GET", "Range: bytes=99999999-", 416, nil},
		"unchanged":          {"GET", `If-None-Match: "` + string(d) + `"`, 304, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := f.do(tc.method, path, nil, tc.header)
			f.want(r, tc.status, "")
			if tc.status < 300 && !bytes.Equal(r.body, tc.body) {
				t.Fatalf("%d bytes, want %d", len(r.body), len(tc.body))
			}
			if tc.status == 200 && (r.header.Get("Docker-Content-Digest") != string(d) || r.header.Get("Content-Length") != fmt.Sprint(len(body)) || r.header.Get("Accept-Ranges") != "bytes") {
				t.Fatal(r.header)
			}
		})
	}
	f.want(f.do("DELETE", path, nil), 202, "")
	f.want(f.do("GET", path, nil), 404, "BLOB_UNKNOWN")
	f.want(f.do("DELETE", path, nil), 404, "BLOB_UNKNOWN")
}

func TestUploadWays(t *testing.T) {
	body := randomBytes(3 << 20)
	d := ref.FromBytes(body)
	half := len(body) / 2
	start := func(f *fixture) string {
		r := f.want(f.do("POST", "/v2/a/blobs/uploads/", nil), 202, "")
		if r.header.Get("Range") != "0-0" || r.header.Get("Docker-Upload-UUID") == "" {
			f.t.Fatal(r.header)
		}
		return r.header.Get("Location")
	}
	for name, upload := range map[string]func(f *fixture) reply{
		"single POST": func(f *fixture) reply {
			return f.do("POST", "/v2/a/blobs/uploads/?digest="+string(d), body)
		},
		"POST then PUT": func(f *fixture) reply {
			return f.do("PUT", start(f)+"?digest="+string(d), body)
		},
		"streamed PATCH then PUT, as docker does": func(f *fixture) reply {
			at := start(f)
			f.want(f.do("PATCH", at, body), 202, "")
			return f.do("PUT", at+"?digest="+string(d), nil)
		},
		"chunks in order, last one with the PUT": func(f *fixture) reply {
			at := start(f)
			r := f.want(f.do("PATCH", at, body[:half], fmt.Sprintf("Content-Range: 0-%d", half-1)), 202, "")
			if r.header.Get("Range") != fmt.Sprintf("0-%d", half-1) {
				f.t.Fatal(r.header)
			}
			return f.do("PUT", r.header.Get("Location")+"?digest="+string(d), body[half:], fmt.Sprintf("Content-Range: %d-%d", half, len(body)-1))
		},
		"chunk out of order is refused, then resumed from the status": func(f *fixture) reply {
			at := start(f)
			f.want(f.do("PATCH", at, body[:half], fmt.Sprintf("Content-Range: 0-%d", half-1)), 202, "")
			r := f.want(f.do("PATCH", at, body[half+1:], fmt.Sprintf("Content-Range: %d-%d", half+1, len(body)-1)), 416, "BLOB_UPLOAD_INVALID")
			if r.header.Get("Range") != fmt.Sprintf("0-%d", half-1) {
				f.t.Fatal(r.header)
			}
			r = f.want(f.do("GET", at, nil), 204, "")
			if r.header.Get("Range") != fmt.Sprintf("0-%d", half-1) || r.header.Get("Location") != at {
				f.t.Fatal(r.header)
			}
			f.want(f.do("PATCH", at, body[half:]), 202, "")
			return f.do("PUT", at+"?digest="+string(d), nil)
		},
		"PUT repeated because the answer was lost": func(f *fixture) reply {
			at := start(f)
			f.want(f.do("PUT", at+"?digest="+string(d), body), 201, "")
			return f.do("PUT", at+"?digest="+string(d), body)
		},
		"mount from another repository": func(f *fixture) reply {
			f.push("b", body)
			return f.do("POST", "/v2/a/blobs/uploads/?from=b&mount="+string(d), nil)
		},
		"automatic mount without from": func(f *fixture) reply {
			f.push("b", body)
			return f.do("POST", "/v2/a/blobs/uploads/?mount="+string(d), nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, nil)
			f.t = t
			r := f.want(upload(f), 201, "")
			if r.header.Get("Docker-Content-Digest") != string(d) {
				t.Fatal(r.header)
			}
			if got := f.want(f.do("GET", r.header.Get("Location"), nil), 200, ""); !bytes.Equal(got.body, body) {
				t.Fatal("wrong bytes")
			}
		})
	}
}

func TestUploadRefusals(t *testing.T) {
	f := newFixture(t, nil)
	other := string(ref.FromBytes([]byte("other")))
	f.want(f.do("POST", "/v2/a/blobs/uploads/?digest="+other, []byte("x")), 400, "DIGEST_INVALID")
	f.want(f.do("POST", "/v2/a/blobs/uploads/?digest=sha256:xyz", []byte("x")), 400, "DIGEST_INVALID")
	f.want(f.do("POST", "/v2/a/blobs/uploads/?from=b&mount="+other, nil), 202, "")
	f.want(f.do("POST", "/v2/A/blobs/uploads/", nil), 400, "NAME_INVALID")

	at := f.want(f.do("POST", "/v2/a/blobs/uploads/", nil), 202, "").header.Get("Location")
	f.want(f.do("PATCH", at, []byte("12345"), "Content-Range: 0-3"), 400, "SIZE_INVALID")
	f.want(f.do("PATCH", at, []byte("12345"), "Content-Range: x"), 416, "BLOB_UPLOAD_INVALID")
	f.want(f.do("PUT", at, []byte("x")), 400, "DIGEST_INVALID")
	f.want(f.do("PUT", at+"?digest="+other, []byte("x")), 400, "DIGEST_INVALID")
	f.want(f.do("GET", at, nil), 404, "BLOB_UPLOAD_UNKNOWN")

	at = f.want(f.do("POST", "/v2/a/blobs/uploads/", nil), 202, "").header.Get("Location")
	f.want(f.do("DELETE", at, nil), 204, "")
	f.want(f.do("PATCH", at, []byte("x")), 404, "BLOB_UPLOAD_UNKNOWN")
	f.want(f.do("PATCH", "/v2/a/blobs/uploads/..%2f..%2fetc", []byte("x")), 404, "")
}

func TestManifests(t *testing.T) {
	f := newFixture(t, nil)
	body := f.image("team/app", "1")
	d := ref.FromBytes(body)
	r := f.want(f.do("PUT", "/v2/team/app/manifests/v1", body, "Content-Type: "+MediaManifest), 201, "")
	if r.header.Get("Docker-Content-Digest") != string(d) || r.header.Get("Location") != "/v2/team/app/manifests/"+string(d) {
		t.Fatal(r.header)
	}
	f.want(f.do("PUT", "/v2/team/app/manifests/"+string(d), body, "Content-Type: "+MediaManifest), 201, "")
	for _, at := range []string{"v1", string(d)} {
		for _, method := range []string{"GET", "HEAD"} {
			r := f.want(f.do(method, "/v2/team/app/manifests/"+at, nil), 200, "")
			if r.header.Get("Content-Type") != MediaManifest || r.header.Get("Content-Length") != fmt.Sprint(len(body)) || r.header.Get("Docker-Content-Digest") != string(d) {
				t.Fatal(method, at, r.header)
			}
			if method == "GET" && !bytes.Equal(r.body, body) {
				t.Fatal("wrong body")
			}
		}
	}
	f.want(f.do("GET", "/v2/team/app/manifests/nope", nil), 404, "MANIFEST_UNKNOWN")
	f.want(f.do("GET", "/v2/nobody/manifests/nope", nil), 404, "NAME_UNKNOWN")
	f.want(f.do("DELETE", "/v2/team/app/manifests/v1", nil), 202, "")
	f.want(f.do("GET", "/v2/team/app/manifests/v1", nil), 404, "MANIFEST_UNKNOWN")
	f.want(f.do("GET", "/v2/team/app/manifests/"+string(d), nil), 200, "")
	f.want(f.do("DELETE", "/v2/team/app/manifests/"+string(d), nil), 202, "")
	f.want(f.do("GET", "/v2/team/app/manifests/"+string(d), nil), 404, "")
	f.want(f.do("DELETE", "/v2/team/app/manifests/"+string(d), nil), 404, "")
}

func TestManifestRefusals(t *testing.T) {
	f := newFixture(t, nil)
	good := string(f.image("a", "1"))
	missing := string(ref.FromBytes([]byte("missing")))
	layer := string(ref.FromBytes([]byte("layer 1")))
	for name, tc := range map[string]struct {
		at, mediaType, body string
		status              int
		code                string
	}{
		"not JSON":            {"v", MediaManifest, "{", 400, "MANIFEST_INVALID"},
		"schema 1":            {"v", "application/vnd.docker.distribution.manifest.v1+json", `{"schemaVersion":1}`, 400, "MANIFEST_INVALID"},
		"unknown type":        {"v", "text/plain", `{"schemaVersion":2}`, 400, "MANIFEST_INVALID"},
		"types disagree":      {"v", MediaIndex, good, 400, "MANIFEST_INVALID"},
		"no config":           {"v", MediaManifest, `{"schemaVersion":2,"layers":[]}`, 400, "MANIFEST_INVALID"},
		"bad digest inside":   {"v", MediaManifest, strings.Replace(good, layer, "sha256:../../x", 1), 400, "MANIFEST_INVALID"},
		"missing blob":        {"v", MediaManifest, strings.Replace(good, layer, missing, 1), 404, "MANIFEST_BLOB_UNKNOWN"},
		"wrong size":          {"v", MediaManifest, strings.Replace(good, `"size":7`, `"size":8`, 1), 400, "MANIFEST_INVALID"},
		"missing child":       {"v", MediaIndex, `{"schemaVersion":2,"manifests":[{"digest":"` + missing + `","size":1}]}`, 404, "MANIFEST_BLOB_UNKNOWN"},
		"digest disagrees":    {missing, MediaManifest, good, 400, "DIGEST_INVALID"},
		"bad tag":             {"-v", MediaManifest, good, 400, "TAG_INVALID"},
		"bad digest in path":  {"sha256:12", MediaManifest, good, 400, "DIGEST_INVALID"},
		"larger than allowed": {"v", MediaManifest, strings.Repeat(" ", maxManifest) + good, 413, "SIZE_INVALID"},
	} {
		t.Run(name, func(t *testing.T) {
			f.t = t
			f.want(f.do("PUT", "/v2/a/manifests/"+tc.at, []byte(tc.body), "Content-Type: "+tc.mediaType), tc.status, tc.code)
			f.want(f.do("GET", "/v2/a/tags/list", nil), 404, "NAME_UNKNOWN")
		})
	}
}

func TestLargeAnnotationsStayOutOfTheIndex(t *testing.T) {
	f := newFixture(t, nil)
	body := bytes.Replace(f.image("a", "1"), []byte(`"schemaVersion":2`),
		[]byte(`"schemaVersion":2,"annotations":{"a":"`+strings.Repeat("x", 1<<20)+`"}`), 1)
	f.want(f.do("PUT", "/v2/a/manifests/v", body, "Content-Type: "+MediaManifest), 201, "")
	if r := f.want(f.do("GET", "/v2/a/manifests/v", nil), 200, ""); !bytes.Equal(r.body, body) {
		t.Fatal("wrong body")
	}
	if m, err := f.index.Manifest(t.Context(), "a", "v"); err != nil || m.Annotations != nil {
		t.Fatal(err)
	}
}

func TestDockerManifestAndIndex(t *testing.T) {
	f := newFixture(t, nil)
	docker := bytes.Replace(f.image("a", "d"), []byte(MediaManifest), []byte(MediaDockerManifest), 1)
	f.want(f.do("PUT", "/v2/a/manifests/docker", docker, "Content-Type: "+MediaDockerManifest), 201, "")
	for _, mediaType := range []string{MediaIndex, MediaDockerList} {
		index, _ := json.Marshal(Document{SchemaVersion: 2, MediaType: mediaType, Manifests: []Descriptor{descriptor(MediaDockerManifest, docker)}})
		f.want(f.do("PUT", "/v2/a/manifests/multi", index, "Content-Type: "+mediaType), 201, "")
		r := f.want(f.do("GET", "/v2/a/manifests/multi", nil), 200, "")
		if r.header.Get("Content-Type") != mediaType || !bytes.Equal(r.body, index) {
			t.Fatal(r.header)
		}
	}
	m, err := f.index.Manifest(t.Context(), "a", "multi")
	if err != nil || len(m.Manifests) != 1 || m.Manifests[0] != ref.FromBytes(docker) {
		t.Fatal(m, err)
	}
	list, _ := f.index.Tags(t.Context(), "a")
	for _, tag := range list {
		if tag.Name == "multi" && len(tag.History) != 2 {
			t.Fatal("tag history:", tag)
		}
	}
}

func TestTagPaging(t *testing.T) {
	f := newFixture(t, nil)
	for _, tag := range []string{"b", "A", "c", "B2", "10"} {
		f.pushImage("a", tag, "same")
	}
	for query, want := range map[string]string{
		"":            "10 A b B2 c",
		"?n=2":        "10 A +",
		"?n=2&last=A": "b B2 +",
		"?last=b":     "B2 c",
		"?n=0":        "",
		"?n=5":        "10 A b B2 c",
		"?last=zzz":   "",
	} {
		r := f.want(f.do("GET", "/v2/a/tags/list"+query, nil), 200, "")
		var list struct {
			Name string
			Tags []string
		}
		json.Unmarshal(r.body, &list)
		got := strings.Join(list.Tags, " ")
		if r.header.Get("Link") != "" {
			got += " +"
		}
		if got != want || list.Tags == nil || list.Name != "a" {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	link := f.do("GET", "/v2/a/tags/list?n=2", nil).header.Get("Link")
	if link != `</v2/a/tags/list?last=A&n=2>; rel="next"` {
		t.Fatal(link)
	}
	f.want(f.do("GET", "/v2/a/tags/list?n=x", nil), 400, "UNSUPPORTED")
	f.pushImage("b/c", "x", "y")
	if r := f.want(f.do("GET", "/v2/_catalog", nil), 200, ""); string(r.body) != `{"repositories":["a","b/c"]}` {
		t.Fatalf("%s", r.body)
	}
}

func TestReferrers(t *testing.T) {
	f := newFixture(t, nil)
	subject := descriptor(MediaManifest, f.image("a", "subject"))
	refer := func(kind string) {
		f.push("a", []byte("{}"))
		c := descriptor("application/vnd.oci.empty.v1+json", []byte("{}"))
		b, _ := json.Marshal(Document{SchemaVersion: 2, MediaType: MediaManifest, ArtifactType: kind, Config: &c, Subject: &subject, Annotations: map[string]string{"k": kind}})
		r := f.want(f.do("PUT", "/v2/a/manifests/"+string(ref.FromBytes(b)), b, "Content-Type: "+MediaManifest), 201, "")
		if r.header.Get("OCI-Subject") != string(subject.Digest) {
			t.Fatal(r.header)
		}
	}
	list := func(path string) ([]Descriptor, http.Header) {
		r := f.want(f.do("GET", path, nil), 200, "")
		if r.header.Get("Content-Type") != MediaIndex {
			t.Fatal(r.header)
		}
		var doc Document
		if err := json.Unmarshal(r.body, &doc); err != nil || doc.Manifests == nil && !bytes.Contains(r.body, []byte(`"manifests":[]`)) {
			t.Fatal(string(r.body))
		}
		return doc.Manifests, r.header
	}
	path := "/v2/a/referrers/" + string(subject.Digest)
	if got, _ := list(path); len(got) != 0 {
		t.Fatal(got)
	}
	refer("test/sbom") // before the subject itself is pushed
	refer("test/signature")
	if got, _ := list(path); len(got) != 2 {
		t.Fatal(got)
	}
	got, header := list(path + "?artifactType=test/sbom")
	if len(got) != 1 || got[0].ArtifactType != "test/sbom" || got[0].Annotations["k"] != "test/sbom" || header.Get("OCI-Filters-Applied") != "artifactType" {
		t.Fatal(got, header)
	}
	f.want(f.do("GET", "/v2/a/referrers/nope", nil), 400, "DIGEST_INVALID")
}

func TestRoutes(t *testing.T) {
	f := newFixture(t, nil)
	f.want(f.do("GET", "/", nil), 404, "UNSUPPORTED")
	f.want(f.do("GET", "/v2/a", nil), 404, "UNSUPPORTED")
	f.want(f.do("POST", "/v2/a/tags/list", nil), 405, "UNSUPPORTED")
	f.want(f.do("GET", "/v2/a/../b/tags/list", nil), 400, "")
	f.want(f.do("GET", "/v2/blobs/uploads/tags/list", nil), 404, "NAME_UNKNOWN")
	off := newFixture(t, func(c *Config) { c.DeleteBlobs = false })
	off.want(off.do("DELETE", "/v2/a/blobs/"+string(off.push("a", nil)), nil), 405, "UNSUPPORTED")
}

func FuzzParseRoute(f *testing.F) {
	for _, s := range []string{"/v2/", "/v2/a/b/manifests/x", "/v2/a/blobs/uploads/1", "/v2/a/blobs/uploads/", "/v2/a/../b/tags/list", "/v2/_catalog"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		at, err := parseRoute(path)
		if err != nil {
			if e := answer(err); e.status >= 500 {
				t.Fatalf("%q: %v", path, err)
			}
			return
		}
		if at.resource != ping && at.resource != catalog && ref.CheckName(at.repository) != nil {
			t.Fatalf("%q: repository %q", path, at.repository)
		}
	})
}

func FuzzParseDocument(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"config":{"digest":"sha256:1"}}`), MediaManifest)
	f.Fuzz(func(t *testing.T, body []byte, contentType string) {
		doc, err := parseDocument(body, contentType)
		if err != nil {
			return
		}
		for _, d := range append(doc.blobs(), doc.Manifests...) {
			if _, err := ref.ParseDigest(string(d.Digest)); err != nil {
				t.Fatal(err)
			}
		}
	})
}
