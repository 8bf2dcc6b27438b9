package peer

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"appliance/registry"
	"appliance/registry/blob"
	"appliance/registry/ref"
)

// node is a master or an agent with its store, service and registry endpoint.
type node struct {
	store    *blob.Store
	dir      string
	service  *Service
	rpc      *httptest.Server
	endpoint *httptest.Server
	wrap     func(http.Handler) http.Handler // of rpc; nil passes
}

type cluster struct {
	t       testing.TB
	masters []*node
	index   registry.Memory
	client  *http.Client
}

func newCluster(t testing.TB, masters int) *cluster {
	c := &cluster{t: t, client: &http.Client{Transport: &http.Transport{DialContext: (&net.Dialer{Timeout: time.Second}).DialContext}}}
	for range masters {
		c.masters = append(c.masters, c.start(blob.Options{Reserve: func(blob.Space) int64 { return 0 }}))
	}
	t.Cleanup(c.client.CloseIdleConnections)
	return c
}

func (c *cluster) start(o blob.Options) *node {
	c.t.Helper()
	n := &node{dir: c.t.TempDir()}
	c.restart(n, o)
	n.rpc = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := n.service.Handler()
		if n.wrap != nil {
			h = n.wrap(h)
		}
		h.ServeHTTP(w, r)
	}))
	c.t.Cleanup(func() { n.rpc.Close() })
	n.endpoint = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		registry.New(registry.Config{Blobs: n.service, Uploads: n.store, Index: &c.index, Authorize: registry.AllowAll}).ServeHTTP(w, r)
	}))
	c.t.Cleanup(func() { n.endpoint.Close() })
	c.t.Cleanup(func() { n.service.stop() })
	return n
}

func (c *cluster) agent() *node {
	return c.start(blob.Options{Reserve: func(blob.Space) int64 { return 0 }})
}

// restart gives the node a new process over the same disk.
func (c *cluster) restart(n *node, o blob.Options) {
	if n.service != nil {
		n.service.stop()
	}
	store, err := blob.New(n.dir, o)
	if err != nil {
		c.t.Fatal(err)
	}
	n.store = store
	n.service = New(Config{Store: store, Client: c.client, Masters: func() []Master {
		var list []Master
		for _, m := range c.masters {
			list = append(list, Master{URL: m.rpc.URL, Self: m == n})
		}
		return list
	}})
}

// down makes the node refuse connections; the returned function undoes it.
func (n *node) down() (up func()) {
	address := n.rpc.Listener.Addr().String()
	handler := n.rpc.Config.Handler
	n.rpc.CloseClientConnections()
	n.rpc.Close()
	return func() {
		var l net.Listener
		var err error
		for range 100 {
			if l, err = net.Listen("tcp", address); err == nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if err != nil {
			panic(err)
		}
		n.rpc = &httptest.Server{Listener: l, Config: &http.Server{Handler: handler}}
		n.rpc.Start()
	}
}

func (c *cluster) holders(d ref.Digest) int {
	n := 0
	for _, m := range c.masters {
		if _, err := m.store.Stat(d); err == nil {
			n++
		}
	}
	return n
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never: " + what)
		}
	}
}

func random(n int) ([]byte, ref.Digest) {
	b := make([]byte, n)
	rand.Read(b)
	return b, ref.FromBytes(b)
}

func call(t testing.TB, method, url string, body []byte, header ...string) (*http.Response, []byte) {
	t.Helper()
	req, _ := http.NewRequest(method, url, bytes.NewReader(body))
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp, b
}

func push(t testing.TB, n *node, body []byte) *http.Response {
	t.Helper()
	resp, b := call(t, "POST", n.endpoint.URL+"/v2/a/blobs/uploads/?digest="+string(ref.FromBytes(body)), body)
	if resp.StatusCode >= 300 {
		t.Logf("%s", b)
	}
	return resp
}

func (c *cluster) pull(n *node, d ref.Digest, header ...string) (*http.Response, []byte) {
	c.t.Helper()
	return call(c.t, "GET", n.endpoint.URL+"/v2/a/blobs/"+string(d), nil, header...)
}

func TestPushThroughAgentReachesQuorum(t *testing.T) {
	for name, down := range map[string]int{"all up": 0, "one down": 1, "two down": 2} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 3)
			agent := c.agent()
			var ups []func()
			for _, m := range c.masters[:down] {
				ups = append(ups, m.down())
			}
			body, d := random(3 << 20)
			// A client asks first, and must not be told "try later" because
			// one master is away.
			if down < 2 {
				if resp, _ := call(t, "HEAD", agent.endpoint.URL+"/v2/a/blobs/"+string(d), nil); resp.StatusCode != 404 {
					t.Fatal(resp.Status)
				}
			}
			resp := push(t, agent, body)
			if down < 2 {
				if resp.StatusCode != 201 || c.holders(d) < 2 {
					t.Fatal(resp.Status, c.holders(d))
				}
				eventually(t, "copies on all that are up", func() bool { return c.holders(d) == 3-down })
				return
			}
			if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
				t.Fatal(resp.Status, resp.Header)
			}
			if _, got := c.pull(agent, d); !bytes.Equal(got, body) {
				t.Fatal("pulls from the local copy must go on")
			}
			manifest := image(body, d)
			if resp, b := call(t, "PUT", agent.endpoint.URL+"/v2/a/manifests/v1", manifest, "Content-Type", registry.MediaManifest); resp.StatusCode != 503 {
				t.Fatalf("a manifest over a single copy: %s %s", resp.Status, b)
			}
			ups[0]()
			if resp, b := call(t, "PUT", agent.endpoint.URL+"/v2/a/manifests/v1", manifest, "Content-Type", registry.MediaManifest); resp.StatusCode != 201 {
				t.Fatalf("after the quorum is back: %s %s", resp.Status, b)
			}
			if n := c.holders(d); n < 2 {
				t.Fatal("a manifest refers to a blob with", n, "copies")
			}
			ups[1]()
		})
	}
}

// image returns a manifest whose config and only layer are the same blob.
func image(body []byte, d ref.Digest) []byte {
	desc := registry.Descriptor{MediaType: "application/vnd.test", Digest: d, Size: int64(len(body))}
	b, _ := json.Marshal(registry.Document{SchemaVersion: 2, MediaType: registry.MediaManifest, Config: &desc, Layers: []registry.Descriptor{desc}})
	return b
}

func TestManifestWithUnknownBlobIsRefusedWithOneMasterDown(t *testing.T) {
	c := newCluster(t, 3)
	agent := c.agent()
	c.masters[0].down()
	body, d := random(10)
	resp, b := call(t, "PUT", agent.endpoint.URL+"/v2/a/manifests/v1", image(body, d), "Content-Type", registry.MediaManifest)
	if resp.StatusCode != 404 || !bytes.Contains(b, []byte("MANIFEST_BLOB_UNKNOWN")) {
		t.Fatalf("%s %s", resp.Status, b)
	}
}

func TestHangingMasterDelaysNobody(t *testing.T) {
	c := newCluster(t, 3)
	agent := c.agent()
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	c.masters[2].wrap = func(http.Handler) http.Handler {
		return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-release:
			case <-r.Context().Done():
			}
		})
	}
	began := time.Now()
	body, d := random(100)
	if resp := push(t, agent, body); resp.StatusCode != 201 {
		t.Fatal(resp.Status)
	}
	reader := c.agent()
	if _, got := c.pull(reader, d); !bytes.Equal(got, body) {
		t.Fatal("wrong bytes")
	}
	if took := time.Since(began); took >= headTimeout {
		t.Fatalf("waited for the hanging master: %s", took)
	}
}

func TestReadThrough(t *testing.T) {
	c := newCluster(t, 3)
	body, d := random(9<<20 + 5)
	if _, err := c.masters[1].store.Put(d, bytes.NewReader(body)); err != nil {
		t.Fatal(err)
	}
	agent := c.agent()
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			if i%2 == 0 {
				if _, got := c.pull(agent, d); !bytes.Equal(got, body) {
					t.Errorf("%d bytes", len(got))
				}
				return
			}
			resp, got := c.pull(agent, d, "Range", "bytes=9437184-")
			if resp.StatusCode != 206 || !bytes.Equal(got, body[9<<20:]) {
				t.Errorf("%s: %d bytes", resp.Status, len(got))
			}
		})
	}
	wg.Wait()
	eventually(t, "the copy is cached", func() bool { _, err := agent.store.Stat(d); return err == nil })
	for _, m := range c.masters {
		m.down()
	}
	if _, got := c.pull(agent, d); !bytes.Equal(got, body) {
		t.Fatal("the cache must serve without masters")
	}
	_, other := random(1)
	if resp, _ := c.pull(agent, other); resp.StatusCode != 503 {
		t.Fatal(resp.Status)
	}
}

func TestUnknownBlob(t *testing.T) {
	c := newCluster(t, 3)
	_, d := random(1)
	for _, n := range []*node{c.agent(), c.masters[0]} {
		if resp, _ := c.pull(n, d); resp.StatusCode != 404 {
			t.Fatal(resp.Status)
		}
	}
}

func TestCorruptCopyIsRefetched(t *testing.T) {
	c := newCluster(t, 3)
	body, d := random(2 << 20)
	if resp := push(t, c.masters[0], body); resp.StatusCode != 201 {
		t.Fatal(resp.Status)
	}
	eventually(t, "three copies", func() bool { return c.holders(d) == 3 })
	// Two of three copies rot while the processes are down.
	for _, m := range c.masters[:2] {
		path := filepath.Join(m.dir, "blobs", "sha256", d.Hex())
		if err := os.WriteFile(path, bytes.Repeat([]byte("x"), len(body)), 0o600); err != nil {
			t.Fatal(err)
		}
		c.restart(m, blob.Options{Reserve: func(blob.Space) int64 { return 0 }})
	}
	for _, m := range c.masters[:2] {
		if _, got := c.pull(m, d); !bytes.Equal(got, body) {
			t.Fatalf("%d bytes", len(got))
		}
	}
	eventually(t, "all copies good", func() bool {
		for _, m := range c.masters {
			if m.store.Verify(d) != nil {
				return false
			}
		}
		return true
	})
}

func TestMasterThatSendsWrongBytesIsNotBelieved(t *testing.T) {
	c := newCluster(t, 1)
	body, d := random(3 << 20)
	c.masters[0].store.Put(d, bytes.NewReader(body))
	c.masters[0].wrap = func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == "GET" {
				w.Write(bytes.Repeat([]byte("x"), len(body)))
				return
			}
			h.ServeHTTP(w, r)
		})
	}
	agent := c.agent()
	resp, err := http.Get(agent.endpoint.URL + "/v2/a/blobs/" + string(d))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if n, err := io.Copy(io.Discard, resp.Body); err == nil {
		t.Fatalf("a whole body of %d wrong bytes was served as %s", n, resp.Status)
	}
	if _, err := agent.store.Stat(d); !errors.Is(err, blob.ErrUnknown) {
		t.Fatal("wrong bytes were stored:", err)
	}
}

func TestBrokenTransferGoesOnAtAnotherMaster(t *testing.T) {
	c := newCluster(t, 3)
	body, d := random(8 << 20)
	var mu sync.Mutex
	var ranges []string
	for _, m := range c.masters {
		m.store.Put(d, bytes.NewReader(body))
		m.wrap = func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method != "GET" {
					h.ServeHTTP(w, r)
					return
				}
				mu.Lock()
				ranges = append(ranges, r.Header.Get("Range"))
				first := len(ranges) == 1
				mu.Unlock()
				if !first {
					h.ServeHTTP(w, r)
					return
				}
				w.Header().Set("Content-Length", fmt.Sprint(len(body)))
				w.Write(body[:5<<20])
				panic(http.ErrAbortHandler)
			})
		}
	}
	if _, got := c.pull(c.agent(), d); !bytes.Equal(got, body) {
		t.Fatal("wrong bytes")
	}
	if len(ranges) != 2 || ranges[0] != "" || ranges[1] == "" {
		t.Fatalf("ranges asked: %q", ranges)
	}
}

func TestFullCachePassesThrough(t *testing.T) {
	c := newCluster(t, 1)
	body, d := random(2 << 20)
	c.masters[0].store.Put(d, bytes.NewReader(body))
	full := c.start(blob.Options{Reserve: func(blob.Space) int64 { return 1 << 62 }})
	if _, got := c.pull(full, d); !bytes.Equal(got, body) {
		t.Fatal("wrong bytes")
	}
	resp, got := c.pull(full, d, "Range", "bytes=100-199")
	if resp.StatusCode != 206 || !bytes.Equal(got, body[100:200]) {
		t.Fatal(resp.Status)
	}
	if resp := push(t, full, body); resp.StatusCode != 507 {
		t.Fatal(resp.Status)
	}
}

func TestFullMasters(t *testing.T) {
	c := newCluster(t, 0)
	for i := range 3 {
		reserve := int64(0)
		if i > 0 {
			reserve = 1 << 62
		}
		c.masters = append(c.masters, c.start(blob.Options{Reserve: func(blob.Space) int64 { return reserve }}))
	}
	body, _ := random(100)
	if resp := push(t, c.agent(), body); resp.StatusCode != 507 {
		t.Fatal(resp.Status)
	}
}

func TestRepairAndScrub(t *testing.T) {
	c := newCluster(t, 3)
	body, d := random(1000)
	for _, m := range c.masters[1:] {
		m.store.Put(d, bytes.NewReader(body))
	}
	m := c.masters[0]
	m.service.Wanted = func(context.Context) iter.Seq[ref.Digest] {
		return func(yield func(ref.Digest) bool) { yield(d) }
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- m.service.Run(ctx) }()
	eventually(t, "the missing copy is fetched", func() bool { return c.holders(d) == 3 })
	path := filepath.Join(m.dir, "blobs", "sha256", d.Hex())
	os.WriteFile(path, []byte("rot"), 0o600)
	m.service.Scrub(ctx, 1<<30)
	if c.holders(d) != 2 {
		t.Fatal("the scrub did not drop the corrupt copy")
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := m.service.Secure(t.Context(), d); !errors.Is(err, blob.ErrUnavailable) {
		t.Fatal("a stopped service must refuse:", err)
	}
}

func TestOverHTTP2(t *testing.T) {
	c := newCluster(t, 2)
	for _, m := range c.masters {
		plain := m.rpc.Config.Handler
		m.rpc.Close()
		m.rpc = httptest.NewUnstartedServer(plain)
		m.rpc.EnableHTTP2 = true
		m.rpc.StartTLS()
	}
	agent := c.agent()
	agent.service.Client = c.masters[0].rpc.Client()
	body, d := random(5 << 20)
	if resp := push(t, agent, body); resp.StatusCode != 201 || c.holders(d) != 2 {
		t.Fatal(resp.Status, c.holders(d))
	}
	agent.store.Delete(d)
	if _, got := c.pull(agent, d); !bytes.Equal(got, body) {
		t.Fatal("wrong bytes")
	}
}

func TestHandlerRefusals(t *testing.T) {
	c := newCluster(t, 1)
	_, d := random(1)
	for name, tc := range map[string]struct {
		method, path, body string
		status             int
	}{
		"path escape":  {"GET", "sha256:..%2f..%2fetc", "", 400},
		"unknown":      {"GET", string(d), "", 404},
		"wrong bytes":  {"PUT", string(d), "other", 422},
		"other method": {"POST", string(d), "", 405},
	} {
		t.Run(name, func(t *testing.T) {
			resp, _ := call(t, tc.method, c.masters[0].rpc.URL+Path+tc.path, []byte(tc.body))
			if resp.StatusCode != tc.status {
				t.Fatal(resp.Status)
			}
		})
	}
}

func BenchmarkQuorumPush(b *testing.B) {
	for name, size := range map[string]int{"16KiB": 16 << 10, "32MiB": 32 << 20} {
		b.Run(name, func(b *testing.B) {
			c := newCluster(b, 3)
			agent := c.agent()
			body, _ := random(size)
			b.SetBytes(int64(size))
			for n := 0; b.Loop(); n++ {
				copy(body, []byte{byte(n), byte(n >> 8), byte(n >> 16)})
				if resp := push(b, agent, body); resp.StatusCode != 201 {
					b.Fatal(resp.Status)
				}
			}
		})
	}
}
