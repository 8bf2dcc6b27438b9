package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"appliance/node/api"
	"appliance/node/lab"
)

// maxAnswer bounds what is read of one answer.
const maxAnswer = 64 << 20

// node speaks to the API socket of one machine. The socket is reached from
// the host whatever happens to the machine's network, so a client of it is
// one that sits on the machine. Safe for concurrent use.
type node struct {
	name string
	http *http.Client
}

func newNode(l *lab.Lab, machine string) *node {
	sock := l.APISocket(machine)
	return &node{machine, &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: 8,
		IdleConnTimeout:     30 * time.Second,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", sock)
		},
	}}}
}

// statusError is an answer that is no success.
type statusError struct {
	code int
	text string
}

func (e *statusError) Error() string { return fmt.Sprintf("answered %d: %.300s", e.code, e.text) }

// do makes one request and returns body and header of a good answer.
func (n *node) do(ctx context.Context, method, path, body string) ([]byte, http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://appliance"+path, strings.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	resp, err := n.http.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s: %s %s: %w", n.name, method, path, &statusError{resp.StatusCode, string(text)})
	}
	return text, resp.Header, err
}

func get[T any](ctx context.Context, n *node, path string) (T, error) {
	var v T
	text, _, err := n.do(ctx, http.MethodGet, path, "")
	if err == nil {
		err = json.Unmarshal(text, &v)
	}
	return v, err
}

// status is what the node itself believes, as are all reads here.
func (n *node) status(ctx context.Context) (api.Status, error) {
	return get[api.Status](ctx, n, api.Prefix+"/status?stale")
}
