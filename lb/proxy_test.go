package lb

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// ingress runs a proxy behind a real listener.
type ingress struct {
	*Proxy
	addr string
	http *http.Client
}

func startIngress(t testing.TB, s Server) *ingress {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	p := New(Config{Log: quiet})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Handler, s.HTTP, s.Log = p, l, quiet
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = p.Run(ctx) })
	wg.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	tr := &http.Transport{MaxIdleConnsPerHost: 100}
	t.Cleanup(func() {
		tr.CloseIdleConnections()
		cancel()
		wg.Wait()
	})
	return &ingress{Proxy: p, addr: l.Addr().String(), http: &http.Client{Transport: tr}}
}

// route sends host "app" to backends.
func (in *ingress) route(t testing.TB, opt Options, backends ...Backend) {
	t.Helper()
	tab, err := NewTable([]Route{{Host: "app", Service: "svc", Options: opt}}, []Service{{Name: "svc", Backends: backends}})
	if err != nil {
		t.Fatal(err)
	}
	in.Swap(tab)
}

func (in *ingress) request(t testing.TB, method, path string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, "http://"+in.addr+path, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "app"
	return r
}

func (in *ingress) get(t testing.TB, path string) (int, string) {
	t.Helper()
	return in.do(t, in.request(t, "GET", path, nil))
}

func (in *ingress) do(t testing.TB, r *http.Request) (int, string) {
	t.Helper()
	resp, err := in.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func backend(t testing.TB, id string, h http.HandlerFunc) (Backend, *httptest.Server) {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return Backend{ID: id, Addr: srv.Listener.Addr().String(), Release: "r1"}, srv
}

func named(id string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, id) }
}

func TestRequestsVisitAllInstancesEvenly(t *testing.T) {
	in := startIngress(t, Server{})
	var bs []Backend
	for _, id := range []string{"a", "b", "c"} {
		b, _ := backend(t, id, named(id))
		bs = append(bs, b)
	}
	in.route(t, Options{}, bs...)
	seen := map[string]int{}
	for i := range 30 {
		_, id := in.get(t, "/")
		seen[id]++
		if i == 15 {
			in.route(t, Options{}, bs...) // a swap must not restart the round
		}
	}
	for _, b := range bs {
		if seen[b.ID] != 10 {
			t.Errorf("visits = %v, want 10 each", seen)
		}
	}
}

func TestUnknownHostNamesTheKnownOnes(t *testing.T) {
	in := startIngress(t, Server{})
	in.route(t, Options{})
	r := in.request(t, "GET", "/", nil)
	r.Host = "nobody"
	if code, body := in.do(t, r); code != 404 || !strings.Contains(body, "Known hosts: app") {
		t.Errorf("got %d %q", code, body)
	}
}

func TestNoBackendTellsCause(t *testing.T) {
	in := startIngress(t, Server{})
	tab, _ := NewTable([]Route{{Host: "app", Service: "svc"}}, []Service{{Name: "svc", Cause: "3 instances are starting"}})
	in.Swap(tab)
	if code, body := in.get(t, "/"); code != 503 || !strings.Contains(body, "3 instances are starting") {
		t.Errorf("got %d %q", code, body)
	}
	if c := in.Counts().Services["svc"].Total(); c.Failed != 1 {
		t.Errorf("failed = %d, want 1", c.Failed)
	}
}

func TestHeadersForBackend(t *testing.T) {
	in := startIngress(t, Server{})
	var got http.Header
	b, _ := backend(t, "a", func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Clone()
		got.Set("Host", r.Host)
		w.Header().Set("Connection", "X-Secret")
		w.Header().Set("X-Secret", "hop")
		w.WriteHeader(204)
	})
	in.route(t, Options{ShowBackend: true}, b)
	r := in.request(t, "GET", "/", nil)
	r.Header.Set("X-Forwarded-For", "6.6.6.6")
	r.Header.Set("Forwarded", "for=6.6.6.6")
	r.Header.Set("Connection", "X-Drop")
	r.Header.Set("X-Drop", "1")
	r.Header.Set("Keep-Alive", "1")
	resp, err := in.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	for k, want := range map[string]string{
		"Host": "app", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "app",
		"Forwarded": "for=127.0.0.1;host=app;proto=http", "X-Drop": "", "Keep-Alive": "",
	} {
		if got.Get(k) != want {
			t.Errorf("%s = %q, want %q", k, got.Get(k), want)
		}
	}
	if id := got.Get("X-Request-Id"); len(id) != 32 || resp.Header.Get("X-Request-Id") != id {
		t.Errorf("request id %q to the backend, %q to the client", id, resp.Header.Get("X-Request-Id"))
	}
	if resp.Header.Get("X-Secret") != "" || resp.Header.Get("X-Appliance-Backend") != "a" {
		t.Errorf("response header %v", resp.Header)
	}
}

// load runs requests from several clients until stopped, and returns how many
// succeeded and what failed.
func (in *ingress) load(t *testing.T, clients int, make func() *http.Request) (stop func() (ok int64, failures []string)) {
	t.Helper()
	var done atomic.Bool
	var n atomic.Int64
	var mu sync.Mutex
	var failures []string
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for !done.Load() {
				resp, err := in.http.Do(make())
				if err == nil {
					var body []byte
					body, err = io.ReadAll(resp.Body)
					resp.Body.Close()
					if err == nil && resp.StatusCode != 200 {
						err = fmt.Errorf("%d %s", resp.StatusCode, body)
					}
				}
				if err != nil {
					mu.Lock()
					failures = append(failures, err.Error())
					mu.Unlock()
					continue
				}
				n.Add(1)
			}
		})
	}
	return func() (int64, []string) {
		done.Store(true)
		wg.Wait()
		return n.Load(), failures
	}
}

func wait(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func TestKilledBackendCostsNoGet(t *testing.T) {
	in := startIngress(t, Server{})
	var bs []Backend
	var srvs []*httptest.Server
	for i := range 4 {
		b, s := backend(t, fmt.Sprint(i), func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Millisecond) // so that some are cut in the middle
			io.WriteString(w, "ok")
		})
		bs, srvs = append(bs, b), append(srvs, s)
	}
	in.route(t, Options{}, bs...)
	stop := in.load(t, 16, func() *http.Request { return in.request(t, "GET", "/", nil) })
	served := func() uint64 { return in.Counts().Services["svc"].Total().Requests }
	for _, s := range srvs[:3] {
		was := served()
		wait(t, "traffic", func() bool { return served() > was+300 })
		s.Listener.Close()
		s.CloseClientConnections()
	}
	was := served()
	wait(t, "traffic", func() bool { return served() > was+300 })
	ok, failures := stop()
	if len(failures) > 0 {
		t.Errorf("%d of %d failed: %s", len(failures), ok, failures[0])
	}
	if c := in.Counts().Services["svc"].Total(); c.Retried == 0 || c.Failed != 0 {
		t.Errorf("retried %d, failed %d", c.Retried, c.Failed)
	}
}

func TestRollingSwapCostsNoPost(t *testing.T) {
	in := startIngress(t, Server{})
	start := func(i int) (Backend, *httptest.Server) {
		return backend(t, fmt.Sprint("t", i), func(w http.ResponseWriter, r *http.Request) {
			n, _ := io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, n)
		})
	}
	b, srv := start(0)
	in.route(t, Options{}, b)
	stop := in.load(t, 8, func() *http.Request { return in.request(t, "POST", "/", strings.NewReader("hello")) })
	for i := 1; i < 25; i++ {
		nb, nsrv := start(i)
		old := b
		old.Draining = true
		in.route(t, Options{}, old, nb)
		was := in.Counts().Services["svc"].Total().Requests
		wait(t, "drain", func() bool { return in.InFlight(old.ID) == 0 })
		srv.Config.Close() // at once, as a killed task
		in.route(t, Options{}, nb)
		wait(t, "traffic", func() bool { return in.Counts().Services["svc"].Total().Requests > was+20 })
		b, srv = nb, nsrv
	}
	if ok, failures := stop(); len(failures) > 0 {
		t.Errorf("%d of %d failed: %s", len(failures), ok, failures[0])
	}
	if got := len(in.Targets()); got > 3 {
		t.Errorf("%d targets remembered", got)
	}
}

func TestPostIsNotSentTwice(t *testing.T) {
	in := startIngress(t, Server{})
	var hits atomic.Int64
	cut := func(w http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		c, _, _ := http.NewResponseController(w).Hijack()
		c.Close()
	}
	a, _ := backend(t, "a", cut)
	b, _ := backend(t, "b", cut)
	in.route(t, Options{}, a, b)
	code, _ := in.do(t, in.request(t, "POST", "/", strings.NewReader("x")))
	if code != 502 || hits.Load() != 1 {
		t.Errorf("status %d after %d attempts, want 502 after 1", code, hits.Load())
	}
}

func TestRefusedConnectionIsRetriedForPost(t *testing.T) {
	in := startIngress(t, Server{})
	a, srv := backend(t, "a", named("a"))
	srv.Close()
	b, _ := backend(t, "b", named("b"))
	in.route(t, Options{}, a, b)
	for range 4 {
		big := bytes.NewReader(make([]byte, replayLimit+1)) // streamed
		if code, body := in.do(t, in.request(t, "POST", "/", big)); code != 200 || body != "b" {
			t.Fatalf("got %d %q", code, body)
		}
	}
	if c := in.Counts().Services["svc"].Total(); c.Retried != 1 {
		t.Errorf("retried %d times, want once: the first refusal ejects", c.Retried)
	}
}

func TestStreamingBothWays(t *testing.T) {
	in := startIngress(t, Server{})
	const size = 64 << 20
	b, _ := backend(t, "a", func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "GET" {
			w.Header().Set("Content-Length", fmt.Sprint(size))
			io.Copy(w, io.LimitReader(&pattern{}, size))
			return
		}
		h := sha256.New()
		n, _ := io.Copy(h, r.Body)
		w.Header().Set("Trailer", "X-Sum")
		fmt.Fprintf(w, "%d %v", n, r.Trailer.Get("X-T"))
		w.Header().Set("X-Sum", fmt.Sprintf("%x", h.Sum(nil)))
	})
	in.route(t, Options{}, b)
	h := sha256.New()
	io.Copy(h, io.LimitReader(&pattern{}, size))
	want := fmt.Sprintf("%x", h.Sum(nil))

	resp, err := in.http.Do(in.request(t, "GET", "/", nil))
	if err != nil {
		t.Fatal(err)
	}
	h.Reset()
	if n, err := io.Copy(h, resp.Body); n != size || err != nil || fmt.Sprintf("%x", h.Sum(nil)) != want {
		t.Errorf("download: %d bytes, %v", n, err)
	}
	resp.Body.Close()

	r := in.request(t, "POST", "/", io.LimitReader(&pattern{}, size)) // chunked
	r.Trailer = http.Header{"X-T": {"tail"}}
	resp, err = in.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if string(body) != fmt.Sprintf("%d tail", size) || resp.Trailer.Get("X-Sum") != want {
		t.Errorf("upload: %q, trailer %v", body, resp.Trailer)
	}
}

// pattern is an endless reader of bytes that tell their place.
type pattern struct{ at uint32 }

func (p *pattern) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(p.at * 2654435761 >> 24)
		p.at++
	}
	return len(b), nil
}

func TestUpgrade(t *testing.T) {
	in := startIngress(t, Server{})
	b, _ := backend(t, "a", func(w http.ResponseWriter, r *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil || r.Header.Get("Upgrade") != "websocket" {
			t.Error(err, r.Header)
			return
		}
		defer c.Close()
		io.WriteString(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhi ")
		rw.Flush()
		io.Copy(c, rw)
	})
	in.route(t, Options{}, b)
	c, err := net.Dial("tcp", in.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET /ws HTTP/1.1\r\nHost: app\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\nearly")
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != 101 {
		t.Fatal(resp, err)
	}
	io.WriteString(c, " late")
	got := make([]byte, len("hi early late"))
	if _, err := io.ReadFull(br, got); err != nil || string(got) != "hi early late" {
		t.Errorf("echo %q, %v", got, err)
	}
	if in.InFlight("a") != 1 {
		t.Error("an upgraded connection must count as in flight")
	}
	c.(*net.TCPConn).CloseWrite()
	if rest, err := io.ReadAll(br); len(rest) > 0 || err != nil {
		t.Errorf("rest %q, %v", rest, err)
	}
	wait(t, "end of upgrade", func() bool { return in.InFlight("a") == 0 })
}

func TestExpectContinue(t *testing.T) {
	in := startIngress(t, Server{})
	b, _ := backend(t, "a", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(403)
			return
		}
		io.Copy(w, r.Body)
	})
	in.route(t, Options{}, b)
	for path, want := range map[string]int{"/yes": 100, "/no": 403} {
		c, err := net.Dial("tcp", in.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: app\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n", path)
		br := bufio.NewReader(c)
		resp, err := http.ReadResponse(br, nil)
		if err != nil || resp.StatusCode != want {
			t.Fatalf("%s: %v %v", path, resp, err)
		}
		if want == 100 {
			io.WriteString(c, "body")
			resp, err = http.ReadResponse(br, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got, _ := io.ReadAll(resp.Body); string(got) != "body" {
				t.Errorf("echo %q", got)
			}
		}
	}
}

func TestEarlyAnswerToLongUpload(t *testing.T) {
	in := startIngress(t, Server{})
	b, _ := backend(t, "a", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		http.Error(w, "no", 413)
	})
	in.route(t, Options{}, b)
	pr, pw := io.Pipe()
	defer pw.Close()
	go pw.Write(make([]byte, 1<<20))
	if code, _ := in.do(t, in.request(t, "POST", "/", pr)); code != 413 {
		t.Errorf("got %d", code)
	}
}

func TestLimits(t *testing.T) {
	in := startIngress(t, Server{})
	b, _ := backend(t, "a", func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	in.route(t, Options{MaxBodyBytes: 100 << 10}, b)
	r := in.request(t, "GET", "/", nil)
	r.Header.Set("X-Big", strings.Repeat("x", 2*maxHeaderBytes))
	if code, _ := in.do(t, r); code != 431 {
		t.Errorf("large header: %d", code)
	}
	if code, _ := in.do(t, in.request(t, "POST", "/", bytes.NewReader(make([]byte, 200<<10)))); code != 413 {
		t.Errorf("large body: %d", code)
	}
	chunked := io.MultiReader(bytes.NewReader(make([]byte, 200<<10)))
	if code, _ := in.do(t, in.request(t, "POST", "/", chunked)); code != 413 {
		t.Errorf("large chunked body: %d", code)
	}
}

func TestEndlessResponseHeadIsCut(t *testing.T) {
	in := startIngress(t, Server{})
	b, _ := backend(t, "a", func(w http.ResponseWriter, r *http.Request) {
		c, _, _ := http.NewResponseController(w).Hijack()
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 200 OK\r\n")
		for {
			if _, err := io.WriteString(c, "X-More: "+strings.Repeat("x", 1000)+"\r\n"); err != nil {
				return
			}
		}
	})
	in.route(t, Options{}, b)
	if code, _ := in.do(t, in.request(t, "POST", "/", nil)); code != 502 {
		t.Errorf("got %d", code)
	}
}

func TestSlowAppGets504(t *testing.T) {
	in := startIngress(t, Server{})
	release := make(chan struct{})
	b, _ := backend(t, "a", func(w http.ResponseWriter, r *http.Request) { <-release })
	defer close(release)
	in.route(t, Options{ResponseTimeout: 30 * time.Millisecond}, b)
	if code, _ := in.do(t, in.request(t, "POST", "/", strings.NewReader("x"))); code != 504 {
		t.Errorf("got %d", code)
	}
	if in.Targets()[0].Ejected != (time.Time{}) {
		t.Error("a slow answer must not eject")
	}
}

func TestCutResponseIsCutForTheClient(t *testing.T) {
	in := startIngress(t, Server{})
	b, _ := backend(t, "a", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		io.WriteString(w, "part")
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	in.route(t, Options{}, b)
	resp, err := in.http.Do(in.request(t, "GET", "/", nil))
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	if err == nil {
		t.Error("a response cut short must not look whole")
	}
	wait(t, "count", func() bool { return in.Counts().Services["svc"].Total().Failed == 1 })
	wait(t, "end of flight", func() bool { return in.InFlight("a") == 0 })
}

func TestClientThatStopsInItsBodyGetsNoSuccess(t *testing.T) {
	in := startIngress(t, Server{})
	b, _ := backend(t, "a", func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
	})
	in.route(t, Options{}, b)
	for _, size := range []int{10, replayLimit + 10} {
		c, err := net.Dial("tcp", in.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: %d\r\n\r\nhalf", size)
		c.(*net.TCPConn).CloseWrite()
		got, _ := io.ReadAll(c)
		if strings.HasPrefix(string(got), "HTTP/1.1 2") {
			t.Errorf("half a body of %d was answered with %q", size, got)
		}
		wait(t, "end of flight", func() bool { return in.InFlight("a") == 0 })
	}
}

func TestServerSentEventsArriveAtOnce(t *testing.T) {
	in := startIngress(t, Server{})
	release := make(chan struct{})
	b, _ := backend(t, "a", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, "data: 1\n\n")
		http.NewResponseController(w).Flush()
		<-release
	})
	in.route(t, Options{}, b)
	resp, err := in.http.Do(in.request(t, "GET", "/", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	buf := make([]byte, 9)
	if _, err := io.ReadFull(resp.Body, buf); err != nil {
		t.Error(err)
	}
	close(release)
}

func TestClientThatLeavesIsNoFailure(t *testing.T) {
	in := startIngress(t, Server{})
	entered := make(chan struct{})
	b, _ := backend(t, "a", func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done() // the proxy passes the cancellation on
	})
	in.route(t, Options{}, b)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-entered; cancel() }()
	if _, err := in.http.Do(in.request(t, "GET", "/", nil).WithContext(ctx)); err == nil {
		t.Fatal("no error")
	}
	wait(t, "count", func() bool {
		c := in.Counts().Services["svc"].Total()
		return c.Canceled == 1 && c.Failed == 0
	})
}
