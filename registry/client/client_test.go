package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"appliance/registry"
	"appliance/registry/blob"
	"appliance/registry/ref"
)

// memory is a Source.
type memory map[ref.Digest][]byte

type file struct{ *bytes.Reader }

func (file) Close() error { return nil }

func (m memory) Open(d ref.Digest) (io.ReadSeekCloser, error) {
	return file{bytes.NewReader(m[d])}, nil
}

func (m memory) add(mediaType string, b []byte) registry.Descriptor {
	d := ref.FromBytes(b)
	m[d] = b
	return registry.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(b))}
}

// image has an empty, a one-byte and a large layer.
func image(size int) (memory, registry.Descriptor) {
	m := memory{}
	large := make([]byte, size)
	rand.Read(large)
	config := m.add("application/vnd.test.config", []byte("{}"))
	body, _ := json.Marshal(registry.Document{SchemaVersion: 2, MediaType: registry.MediaManifest, Config: &config,
		Layers: []registry.Descriptor{m.add("l", nil), m.add("l", []byte("x")), m.add("l", large)}})
	return m, m.add(registry.MediaManifest, body)
}

// server is a registry behind a handler that tests can put faults into.
func server(t *testing.T, fault func(w http.ResponseWriter, r *http.Request, next http.Handler)) *Client {
	store, err := blob.New(t.TempDir(), blob.Options{Reserve: func(blob.Space) int64 { return 0 }})
	if err != nil {
		t.Fatal(err)
	}
	next := registry.New(registry.Config{Blobs: registry.Local{Store: store}, Uploads: store, Index: &registry.Memory{}, Authorize: onlyCI})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fault == nil {
			next.ServeHTTP(w, r)
		} else {
			fault(w, r, next)
		}
	}))
	t.Cleanup(s.Close)
	return &Client{Base: s.URL, User: "ci", Secret: "secret"}
}

func onlyCI(_ context.Context, r *http.Request, _ string, _ registry.Action) error {
	if user, secret, _ := r.BasicAuth(); user != "ci" || secret != "secret" {
		return registry.ErrUnauthorized
	}
	return nil
}

func pulled(t *testing.T, c *Client, m memory, root registry.Descriptor, repository string) {
	t.Helper()
	got, err := c.Resolve(t.Context(), repository, "v1")
	if err != nil || got.Digest != root.Digest || got.Size != root.Size || got.MediaType != root.MediaType {
		t.Fatal(got, err)
	}
	for d, want := range m {
		if d == root.Digest {
			continue
		}
		r, err := c.Blob(t.Context(), repository, d)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		r.Close()
		if err != nil || !bytes.Equal(b, want) {
			t.Fatal(len(b), err)
		}
	}
}

func TestPushAndPull(t *testing.T) {
	c := server(t, nil)
	m, root := image(3 << 20)
	for _, existed := range []bool{false, true} {
		seen := map[ref.Digest]Progress{}
		if err := c.Push(t.Context(), m, root, "team/app", "v1", func(p Progress) { seen[p.Digest] = p }); err != nil {
			t.Fatal(err)
		}
		for _, p := range seen {
			if !p.Done || p.Sent != p.Size || p.Existed != existed {
				t.Fatalf("%+v", p)
			}
		}
		if len(seen) != 4 {
			t.Fatal(seen)
		}
	}
	pulled(t, c, m, root, "team/app")
	if _, err := c.Resolve(t.Context(), "team/app", "nope"); !errors.Is(err, ErrUnknown) {
		t.Fatal(err)
	}
	body, _, err := c.Manifest(t.Context(), "team/app", string(root.Digest))
	if err != nil || !bytes.Equal(body, m[root.Digest]) {
		t.Fatal(err)
	}
}

func TestPushGoesOnAfterFaults(t *testing.T) {
	const size = 3 << 20
	for name, fault := range map[string]func(n int, w http.ResponseWriter, r *http.Request, next http.Handler) bool{
		"connection cut in the middle of a chunk": func(n int, w http.ResponseWriter, r *http.Request, next http.Handler) bool {
			if r.Method == "PATCH" && r.ContentLength > 1<<20 && n <= 2 {
				r.Body = io.NopCloser(io.MultiReader(io.LimitReader(r.Body, 2<<20), broken{}))
				next.ServeHTTP(httptest.NewRecorder(), r)
				panic(http.ErrAbortHandler)
			}
			return false
		},
		"answer to PATCH lost": func(n int, _ http.ResponseWriter, r *http.Request, next http.Handler) bool {
			if r.Method == "PATCH" && n == 1 {
				next.ServeHTTP(httptest.NewRecorder(), r)
				panic(http.ErrAbortHandler)
			}
			return false
		},
		"answer to PUT lost": func(n int, _ http.ResponseWriter, r *http.Request, next http.Handler) bool {
			if r.Method == "PUT" && n == 1 {
				next.ServeHTTP(httptest.NewRecorder(), r)
				panic(http.ErrAbortHandler)
			}
			return false
		},
		"quorum away for a moment": func(n int, w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
			if r.Method == "PUT" && n <= 2 {
				w.WriteHeader(503)
				return true
			}
			return false
		},
		"upload forgotten": func(n int, w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
			if r.Method == "PATCH" && n == 1 {
				w.WriteHeader(404)
				return true
			}
			return false
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			count := map[string]int{}
			c := server(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				mu.Lock()
				count[r.Method]++
				n := count[r.Method]
				if r.ContentLength > 1<<20 {
					count["large"]++
					n = count["large"]
				}
				mu.Unlock()
				if !fault(n, w, r, next) {
					next.ServeHTTP(w, r)
				}
			})
			m, root := image(size)
			if err := c.Push(t.Context(), m, root, "team/app", "v1", nil); err != nil {
				t.Fatal(err)
			}
			pulled(t, c, m, root, "team/app")
		})
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestPushRefusals(t *testing.T) {
	m, root := image(10)
	for name, tc := range map[string]struct {
		change func(*Client)
		repo   string
		tag    string
		want   string
	}{
		"wrong secret": {func(c *Client) { c.Secret = "x" }, "a", "v1", "UNAUTHORIZED"},
		"bad name":     {func(*Client) {}, "A", "v1", "invalid repository name"},
		"bad tag":      {func(*Client) {}, "a", "-", "invalid tag"},
		"bad address":  {func(c *Client) { c.Base = "localhost" }, "a", "v1", "want http://host:port"},
	} {
		t.Run(name, func(t *testing.T) {
			c := server(t, nil)
			tc.change(c)
			err := c.Push(t.Context(), m, root, tc.repo, tc.tag, nil)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestForeignLocationGetsNoCredentials(t *testing.T) {
	thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Error("credentials sent:", r.Header.Get("Authorization"))
	}))
	defer thief.Close()
	c := server(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == "POST" {
			w.Header().Set("Location", thief.URL+"/v2/a/blobs/uploads/1")
			w.WriteHeader(202)
			return
		}
		next.ServeHTTP(w, r)
	})
	m, root := image(10)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := c.Push(ctx, m, root, "a", "v1", nil)
	if err == nil || !strings.Contains(err.Error(), "points to another host") {
		t.Fatal(err)
	}
}

func TestWrongBytesAreNoticed(t *testing.T) {
	c := server(t, func(w http.ResponseWriter, r *http.Request, _ http.Handler) { w.Write([]byte("wrong")) })
	d := ref.FromBytes([]byte("right"))
	r, err := c.Blob(t.Context(), "a", d)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.ReadAll(r); !errors.Is(err, ErrDigest) {
		t.Fatal(err)
	}
	if _, _, err := c.Manifest(t.Context(), "a", string(d)); !errors.Is(err, ErrDigest) {
		t.Fatal(err)
	}
}
