package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"appliance/cmd/cli/ui"
	"appliance/node"
	"appliance/node/api"
	"appliance/node/model"
)

// DefaultSocket is where a node's API listens for its own machine.
const DefaultSocket = "/run/appliance/api.sock"

// Client speaks to the API of one node, by its unix socket or over HTTP.
type Client struct {
	base  string
	token string
	http  *http.Client
	addr  string // as the user gave it, for messages
	lab   string // the lab's machine that it is, for messages
	// stale, if set, is told once when an answer is not confirmed to be current.
	stale func(asOf string)
	told  sync.Once
}

// requestTimeout bounds a call that does not stream.
const requestTimeout = 30 * time.Second

// NewClient connects to unix:///path, or http://host:port with a token.
func NewClient(addr, token string) (*Client, error) {
	c := &Client{token: token, addr: addr}
	transport := &http.Transport{ResponseHeaderTimeout: requestTimeout}
	switch {
	case strings.HasPrefix(addr, "unix://"):
		path := strings.TrimPrefix(addr, "unix://")
		c.base = "http://appliance"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", path)
		}
	case strings.HasPrefix(addr, "http://"), strings.HasPrefix(addr, "https://"):
		c.base = strings.TrimSuffix(addr, "/")
	default:
		return nil, model.Errorf(model.CodeInvalid, "%q is not an address", addr).Try("use unix:///PATH or http://HOST:PORT")
	}
	c.http = &http.Client{Transport: transport}
	return c, nil
}

// Get reads path into out.
func (c *Client) Get(ctx context.Context, path string, out any) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	resp, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(out)
}

// Post sends in and reads the answer into out.
func (c *Client) Post(ctx context.Context, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	resp, err := c.do(ctx, http.MethodPost, path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(out)
}

// Delete removes what path names.
func (c *Client) Delete(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	resp, err := c.do(ctx, http.MethodDelete, path, nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// Stream opens path; the caller closes the body.
func (c *Client) Stream(ctx context.Context, path string) (io.ReadCloser, error) {
	resp, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

func (c *Client) do(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+api.Prefix+path, body)
	if err != nil {
		return nil, err
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if asOf := resp.Header.Get(api.StaleHeader); asOf != "" && c.stale != nil {
		c.told.Do(func() { c.stale(asOf) })
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	var f api.Failure
	raw, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if json.Unmarshal(raw, &f) != nil || f.Error == nil {
		return nil, model.Errorf(model.CodeInternal, "the node answered %s", resp.Status).Because("%s", bytes.TrimSpace(raw))
	}
	return nil, f.Error
}

func (c *Client) unreachable(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, os.ErrPermission):
		return model.Errorf(model.CodeDenied, "this node's API may only be used by root").Try("run it with sudo, or use --address with a token")
	case c.failed() != nil:
		last := c.failed()
		return model.Errorf(model.CodeUnavailable, "the node on %s does not run", cmp.Or(c.lab, "this machine")).
			Because("it ended %s ago: %s", ui.Since(last.At), last.Error.What+after(": ", last.Error.Why)).Try("%s", last.Error.Fix)
	case c.lab != "" && (errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)):
		return model.Errorf(model.CodeUnavailable, "no node runs on %s of the lab", c.lab).Because("%v", err).
			Try("see: appliance lab status; or start the lab with: appliance lab up")
	case errors.Is(err, os.ErrNotExist):
		return model.Errorf(model.CodeUnavailable, "no node runs on this machine").Because("%s is not there", strings.TrimPrefix(c.addr, "unix://")).
			Try("start one with appliance init or join, or name another with --address or APPLIANCE_ADDR; for the lab: --lab")
	}
	return model.Errorf(model.CodeUnavailable, "the node at %s does not answer", c.addr).Because("%v", err).
		Try("see whether appliance runs there, or use another node with --address")
}

// failed is why a node of this machine that should answer has ended, nil if it did not fail.
func (c *Client) failed() *node.LastStop {
	if path, local := strings.CutPrefix(c.addr, "unix://"); local {
		return node.ReadLastStop(filepath.Dir(path))
	}
	return nil
}

func after(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

// progress streams a deployment's progress lines to fn until it is done. A
// broken stream is opened again: the node may have been lost meanwhile.
func (c *Client) progress(ctx context.Context, id string, fn func(api.Progress)) (*model.Deployment, error) {
	var last *model.Deployment
	for failures := 0; ; {
		err := c.progressOnce(ctx, id, func(p api.Progress) { last, failures = p.Deployment, 0; fn(p) })
		if last != nil && last.State != model.DeploymentRunning {
			return last, nil
		}
		if ctx.Err() != nil {
			return last, ctx.Err()
		}
		if failures++; failures > 10 {
			return last, fmt.Errorf("lost sight of deployment %s: %w", id, err)
		}
		time.Sleep(300 * time.Millisecond)
	}
}

func (c *Client) progressOnce(ctx context.Context, id string, fn func(api.Progress)) error {
	body, err := c.Stream(ctx, "/deployments/"+id+"/watch")
	if err != nil {
		return err
	}
	defer body.Close()
	dec := json.NewDecoder(body)
	for {
		var p api.Progress
		if err := dec.Decode(&p); err != nil {
			return err
		}
		fn(p)
	}
}

// dialUnix connects to a unix:// address.
func dialUnix(addr string) (net.Conn, error) {
	return net.DialTimeout("unix", strings.TrimPrefix(addr, "unix://"), time.Second)
}
