// Package client pulls from and pushes to an OCI registry over HTTP. What it
// reads is verified; what it pushes goes on after a lost connection.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"strings"

	"appliance/registry"
	"appliance/registry/internal/idle"
	"appliance/registry/ref"
)

var (
	// ErrUnknown: the registry has no such manifest or blob.
	ErrUnknown = errors.New("not in the registry")
	// ErrDigest: the registry sent other bytes than asked for.
	ErrDigest = errors.New("digest mismatch")
	// ErrAddress: the registry's address, or one that it names, is unusable.
	ErrAddress = errors.New("bad registry address")
)

// maxManifest is what the specification lets a manifest have.
const maxManifest = 4 << 20

// Client talks to one registry. It is safe for concurrent use.
type Client struct {
	Base   string       // "http://127.0.0.1:5000"
	HTTP   *http.Client // nil means http.DefaultClient; without an overall timeout, for blobs are large
	User   string       // sent as Basic authorization unless Secret is empty
	Secret string
}

// statusError is an answer that is not a success.
type statusError struct {
	status int
	text   string
}

func (e statusError) Error() string { return e.text }

func (c *Client) do(ctx context.Context, method, path string, body io.Reader, change func(*http.Request)) (*http.Response, error) {
	target, err := c.resolve(path)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, err
	}
	if c.Secret != "" {
		req.SetBasicAuth(c.User, c.Secret)
	}
	if change != nil {
		change(req)
	}
	h := c.HTTP
	if h == nil {
		h = http.DefaultClient
	}
	resp, err := h.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, fmt.Errorf("registry %s: %w", c.Base, err)
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		return nil, refused(c.Base, resp)
	}
	return resp, nil
}

// resolve keeps credentials at home: a Location elsewhere is refused.
func (c *Client) resolve(path string) (string, error) {
	base, err := url.Parse(c.Base)
	if err != nil || base.Host == "" {
		return "", fmt.Errorf("%w %q: want http://host:port", ErrAddress, c.Base)
	}
	target, err := base.Parse(path)
	if err != nil {
		return "", fmt.Errorf("%w: %s names the location %q: %w", ErrAddress, c.Base, path, err)
	}
	if target.Host != base.Host {
		return "", fmt.Errorf("%w: %s points to another host: %s", ErrAddress, c.Base, target.Host)
	}
	return target.String(), nil
}

// refused turns the specification's error body into one line.
func refused(base string, resp *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // enough for any message
	var body struct {
		Errors []struct{ Code, Message string }
	}
	text := resp.Status
	if json.Unmarshal(b, &body) == nil && len(body.Errors) > 0 {
		text = body.Errors[0].Message + " (" + body.Errors[0].Code + ")"
	}
	if resp.StatusCode == http.StatusUnauthorized {
		text = "the token is missing or wrong (UNAUTHORIZED)"
	}
	err := statusError{resp.StatusCode, "registry " + base + ": " + text}
	if resp.StatusCode == http.StatusNotFound {
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	return err
}

var accepted = []string{registry.MediaManifest, registry.MediaIndex, registry.MediaDockerManifest, registry.MediaDockerList}

func manifestPath(repository, object string) string {
	return "/v2/" + repository + "/manifests/" + object
}

func blobPath(repository string, d ref.Digest) string {
	return "/v2/" + repository + "/blobs/" + string(d)
}

// Resolve returns what a tag or digest names now.
func (c *Client) Resolve(ctx context.Context, repository, object string) (registry.Descriptor, error) {
	resp, err := c.do(ctx, http.MethodHead, manifestPath(repository, object), nil, func(r *http.Request) { r.Header["Accept"] = accepted })
	if err != nil {
		return registry.Descriptor{}, err
	}
	defer resp.Body.Close()
	d, err := ref.ParseDigest(resp.Header.Get("Docker-Content-Digest"))
	if err != nil {
		return registry.Descriptor{}, fmt.Errorf("registry %s: %w", c.Base, err)
	}
	return registry.Descriptor{MediaType: resp.Header.Get("Content-Type"), Digest: d, Size: resp.ContentLength}, nil
}

// Manifest returns a manifest's bytes, verified if object is a digest.
func (c *Client) Manifest(ctx context.Context, repository, object string) ([]byte, registry.Descriptor, error) {
	resp, err := c.do(ctx, http.MethodGet, manifestPath(repository, object), nil, func(r *http.Request) { r.Header["Accept"] = accepted })
	if err != nil {
		return nil, registry.Descriptor{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxManifest))
	if err != nil {
		return nil, registry.Descriptor{}, fmt.Errorf("registry %s: %w", c.Base, err)
	}
	d := ref.FromBytes(b)
	if strings.Contains(object, ":") && object != string(d) {
		return nil, registry.Descriptor{}, fmt.Errorf("%w: asked for %s, registry %s sent %s", ErrDigest, object, c.Base, d)
	}
	return b, registry.Descriptor{MediaType: resp.Header.Get("Content-Type"), Digest: d, Size: int64(len(b))}, nil
}

// Blob streams a blob; the last Read returns ErrDigest if the bytes were
// wrong. The caller closes it.
func (c *Client) Blob(ctx context.Context, repository string, d ref.Digest) (io.ReadCloser, error) {
	ctx, watch, stop := idle.Watch(ctx)
	resp, err := c.do(ctx, http.MethodGet, blobPath(repository, d), nil, nil)
	if err != nil {
		stop()
		return nil, err
	}
	return &verified{r: watch(resp.Body), hash: d.Hash(), want: d, close: func() error { stop(); return resp.Body.Close() }}, nil
}

type verified struct {
	r     io.Reader
	hash  hash.Hash
	want  ref.Digest
	close func() error
}

func (v *verified) Read(p []byte) (int, error) {
	n, err := v.r.Read(p)
	v.hash.Write(p[:n])
	if err == io.EOF && ref.FromHash(v.hash) != v.want {
		err = fmt.Errorf("%w: asked for %s, got %s", ErrDigest, v.want, ref.FromHash(v.hash))
	}
	return n, err
}

func (v *verified) Close() error { return v.close() }

// PutManifest pushes a manifest under a tag or its digest.
func (c *Client) PutManifest(ctx context.Context, repository, object, mediaType string, body []byte) error {
	return c.retry(ctx, func() error {
		resp, err := c.do(ctx, http.MethodPut, manifestPath(repository, object), bytes.NewReader(body), func(r *http.Request) {
			r.Header.Set("Content-Type", mediaType)
		})
		if err != nil {
			return err
		}
		return resp.Body.Close()
	})
}
