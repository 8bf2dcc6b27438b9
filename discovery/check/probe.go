package check

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"appliance/node/model"
)

// newClient makes a client that opens a connection for every probe: what is
// asked is whether the service can be reached, not whether it once could.
func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, Proxy: nil, ResponseHeaderTimeout: time.Minute}}
}

// probe runs one check once.
func (r *Runner) probe(ctx context.Context, spec model.CheckDefinition) (status, output string) {
	select {
	case r.probes <- struct{}{}:
		defer func() { <-r.probes }()
	case <-ctx.Done():
		return "critical", ctx.Err().Error()
	}
	ctx, cancel := context.WithTimeout(ctx, orDefault(spec.Timeout.D(), defaultTimeout))
	defer cancel()
	if spec.HTTP != "" {
		return r.probeHTTP(ctx, spec)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", spec.TCP)
	if err != nil {
		return "critical", err.Error()
	}
	conn.Close()
	return "passing", fmt.Sprintf("TCP connect %s: Success", spec.TCP)
}

// probeHTTP: 2xx is passing, 429 a warning, anything else critical.
func (r *Runner) probeHTTP(ctx context.Context, spec model.CheckDefinition) (status, output string) {
	method := spec.Method
	if method == "" {
		method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(ctx, method, spec.HTTP, nil)
	if err != nil {
		return "critical", err.Error()
	}
	for k, vs := range spec.Header {
		req.Header[http.CanonicalHeaderKey(k)] = vs
	}
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return "critical", err.Error()
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, MaxOutput)) // the status is what counts
	output = fmt.Sprintf("HTTP %s %s: %s Output: %s", method, spec.HTTP, resp.Status, body)
	switch {
	case resp.StatusCode >= 200 && resp.StatusCode <= 299:
		return "passing", output
	case resp.StatusCode == http.StatusTooManyRequests:
		return "warning", output
	}
	return "critical", output
}
