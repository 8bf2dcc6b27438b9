package registry

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

func TestOnePortForHTTPAndTLS(t *testing.T) {
	// httptest makes a certificate and a client that trusts it.
	model := httptest.NewTLSServer(nil)
	defer model.Close()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.TLS != nil {
				io.WriteString(w, "tls")
			} else {
				io.WriteString(w, "plain")
			}
		})
		done <- Serve(ctx, inner, &tls.Config{Certificates: model.TLS.Certificates}, h, slog.New(slog.DiscardHandler))
	}()

	silent, err := net.Dial("tcp", inner.Addr().String()) // must not block the others
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for scheme, want := range map[string]string{"http": "plain", "https": "tls"} {
		resp, err := model.Client().Get(scheme + "://" + inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(b) != want {
			t.Fatalf("%s: %q", scheme, b)
		}
	}
	model.Client().CloseIdleConnections()
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("Serve does not end")
	}
	if _, err := net.Dial("tcp", inner.Addr().String()); err == nil {
		t.Fatal("the port is still open")
	}
}
