package lb

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// newH2C makes the transport for backends that speak HTTP/2 without TLS.
func newH2C() *http.Transport {
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	return &http.Transport{
		Protocols:          &p,
		DisableCompression: true,
		IdleConnTimeout:    time.Minute,
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return dial(ctx, addr, connectTimeout)
		},
		HTTP2: &http.HTTP2Config{SendPingTimeout: 2 * time.Second, PingTimeout: 2 * time.Second},
	}
}

// attemptH2 asks a target over HTTP/2, which carries gRPC: streams both ways,
// and trailers.
func (x *exchange) attemptH2(t *target) *failure {
	ctx, cancel := context.WithCancelCause(x.r.Context())
	defer cancel(nil)
	path, err := url.ParseRequestURI(x.uri())
	if err != nil {
		return &failure{err: err}
	}
	path.Scheme, path.Host = "http", t.addr
	out := &http.Request{
		Method: x.r.Method, URL: path, Host: x.r.Host, Header: x.header,
		ContentLength: x.body.length, Body: http.NoBody, Trailer: x.r.Trailer,
	}
	if x.body.stream {
		if x.r.ProtoMajor == 1 {
			_ = x.body.rc.EnableFullDuplex()
		}
		out.Body = &tapped{ReadCloser: x.r.Body, read: &x.body}
	}
	wait := time.AfterFunc(x.route.Options.ResponseTimeout, func() { cancel(errSlow) })
	resp, err := x.p.h2.RoundTrip(out.WithContext(ctx))
	wait.Stop()
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, errSlow) {
			err = errSlow
		}
		var op *net.OpError
		unsent := errors.As(err, &op) && op.Op == "dial"
		if x.r.Context().Err() == nil && !x.slow(err) {
			x.fault(t, err)
		}
		return &failure{err: err, sent: !unsent}
	}
	defer resp.Body.Close()
	if t.healthy() {
		x.p.log.Info("backend answers again", "service", t.service, "task", t.id, "addr", t.addr)
	}
	x.respond(resp, nil)
	return nil
}

// tapped notes that the client's body has been read from, and leaves closing it
// to the server.
type tapped struct {
	io.ReadCloser
	read *body
}

func (t *tapped) Read(p []byte) (int, error) {
	t.read.read.Store(true)
	return t.ReadCloser.Read(p)
}

func (t *tapped) Close() error { return nil }
