package lb

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

func selfSigned(t *testing.T, name string) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestTLSChoosesCertificateAndProtocol(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	certs := map[string]*tls.Certificate{"app": selfSigned(t, "app"), "other": selfSigned(t, "other")}
	in := startIngress(t, Server{TLS: l, GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		return certs[h.ServerName], nil
	}})
	b, _ := backend(t, "a", func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		w.Header().Set("X-Len", http.StatusText(200)+r.Header.Get("X-Forwarded-Proto"))
		if n > 0 {
			w.WriteHeader(201)
		}
	})
	in.route(t, Options{}, b)
	for _, name := range []string{"app", "other"} {
		tr := &http.Transport{
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: name}, ForceAttemptHTTP2: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return net.Dial("tcp", l.Addr().String()) },
		}
		defer tr.CloseIdleConnections()
		resp, err := (&http.Client{Transport: tr}).Post("https://app/", "", io.MultiReader(strings.NewReader("x")))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := resp.TLS.PeerCertificates[0].DNSNames[0]; got != name || resp.ProtoMajor != 2 {
			t.Errorf("asked for %s: certificate %s over %s", name, got, resp.Proto)
		}
		if resp.StatusCode != 201 || resp.Header.Get("X-Len") != "OKhttps" {
			t.Errorf("%d %v", resp.StatusCode, resp.Header)
		}
	}
}

func TestRedirectToTLS(t *testing.T) {
	in := startIngress(t, Server{})
	in.route(t, Options{RedirectTLS: true})
	in.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := in.http.Do(in.request(t, "GET", "/x?y=1", nil))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 308 || resp.Header.Get("Location") != "https://app/x?y=1" {
		t.Errorf("%d to %s", resp.StatusCode, resp.Header.Get("Location"))
	}
}

func TestH2CStreamsBothWaysWithTrailers(t *testing.T) {
	in := startIngress(t, Server{H2C: true})
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 || r.Header.Get("Te") != "trailers" {
			t.Errorf("%s, TE %q", r.Proto, r.Header.Get("Te"))
		}
		w.Header().Set("Trailer", "Grpc-Status")
		buf := make([]byte, 4)
		for {
			n, err := r.Body.Read(buf)
			w.Write(bytes.ToUpper(buf[:n]))
			http.NewResponseController(w).Flush()
			if err != nil {
				break
			}
		}
		w.Header().Set("Grpc-Status", "0")
	}))
	srv.Config.Protocols = &p
	srv.Start()
	t.Cleanup(srv.Close)
	in.route(t, Options{H2C: true}, Backend{ID: "a", Addr: srv.Listener.Addr().String()})

	tr := &http.Transport{Protocols: &p}
	defer tr.CloseIdleConnections()
	pr, pw := io.Pipe()
	r := in.request(t, "POST", "/pkg.Service/Method", pr)
	r.Header.Set("Te", "trailers")
	go io.WriteString(pw, "ping")
	resp, err := tr.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	buf := make([]byte, 4)
	for _, want := range []string{"PING", "PONG"} { // the answer comes while the request is open
		if _, err := io.ReadFull(resp.Body, buf); err != nil || string(buf) != want {
			t.Fatalf("%q, %v", buf, err)
		}
		if want == "PING" {
			io.WriteString(pw, "pong")
		}
	}
	pw.Close()
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 || resp.Trailer.Get("Grpc-Status") != "0" {
		t.Errorf("rest %q, %v, trailer %v", rest, err, resp.Trailer)
	}
}

func TestShutdownLetsRequestsEnd(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	b, _ := backend(t, "a", func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-release
		io.WriteString(w, "done")
	})
	p := New(Config{})
	tab, _ := NewTable([]Route{{Host: "*", Service: "s"}}, []Service{{Name: "s", Backends: []Backend{b}}})
	p.Swap(tab)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := (&Server{Handler: p, HTTP: l}).Run(ctx); err != nil {
			t.Error(err)
		}
	})
	wg.Go(func() {
		resp, err := http.Get("http://" + l.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		if got, _ := io.ReadAll(resp.Body); string(got) != "done" {
			t.Errorf("got %q", got)
		}
	})
	<-entered
	cancel()
	wait(t, "listener to close", func() bool {
		c, err := net.Dial("tcp", l.Addr().String())
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	close(release)
	wg.Wait()
	p.reap(true)
}

func TestAccessLogWritesLinesAndCountsDrops(t *testing.T) {
	log := NewAccessLog()
	for i := range accessQueue + 3 {
		log.add(Access{Status: 200, Path: "/x", Bytes: int64(i)})
	}
	if log.Dropped() != 3 {
		t.Errorf("dropped %d, want 3", log.Dropped())
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var out bytes.Buffer
	if err := log.Run(ctx, &out); err != nil {
		t.Fatal(err)
	}
	dec, n := json.NewDecoder(&out), 0
	for dec.More() {
		var a Access
		if err := dec.Decode(&a); err != nil || a.Bytes != int64(n) {
			t.Fatal(a, err)
		}
		n++
	}
	if n != accessQueue {
		t.Errorf("%d lines", n)
	}
}
