package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"appliance/registry/blob"
	"appliance/registry/internal/idle"
	"appliance/registry/ref"
)

// askHead asks one master for the size of its copy.
func (s *Service) askHead(ctx context.Context, m Master, d ref.Digest) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, headTimeout)
	defer cancel()
	resp, err := s.send(ctx, http.MethodHead, m, d, nil, 0)
	if err != nil {
		return 0, err
	}
	resp.Body.Close()
	if resp.ContentLength < 0 {
		return 0, fmt.Errorf("%s tells no size of %s", m.URL, d)
	}
	return resp.ContentLength, nil
}

// send turns refusals into the store's errors.
func (s *Service) send(ctx context.Context, method string, m Master, d ref.Digest, body io.Reader, size int64) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, s.url(m, d), body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.ContentLength = size
	}
	resp, err := s.Client.Do(req)
	if err != nil {
		return nil, cause(ctx, err)
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	const enough = 1 << 10 // of an error message
	text, _ := io.ReadAll(io.LimitReader(resp.Body, enough))
	if known, ok := statuses[resp.StatusCode]; ok {
		return nil, fmt.Errorf("%w: %s: %s", known, m.URL, strings.TrimSpace(string(text)))
	}
	return nil, fmt.Errorf("%s: %s: %s", m.URL, resp.Status, strings.TrimSpace(string(text)))
}

// cause prefers why a context ended over the client's "context canceled".
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil && errors.Is(err, context.Canceled) {
		return c
	}
	return err
}

// putTo copies the local blob to a master. It returns once that master has
// verified and synced it.
func (s *Service) putTo(m Master, d ref.Digest) error {
	_, err, _ := s.puts.Do(m.URL+string(d), func() (any, error) {
		select {
		case s.slots <- struct{}{}:
		case <-s.ctx.Done():
			return nil, errStopped
		}
		defer func() { <-s.slots }()
		c, err := s.Store.Open(d)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		ctx, watch, stop := idle.Watch(s.ctx)
		defer stop()
		resp, err := s.send(ctx, http.MethodPut, m, d, watch(io.LimitReader(c, c.Size)), c.Size)
		if err != nil {
			return nil, err
		}
		return nil, resp.Body.Close()
	})
	return err
}

// fetch streams the blob from offset on; close the result.
func (s *Service) fetch(ctx context.Context, m Master, d ref.Digest, offset int64) (io.ReadCloser, error) {
	ctx, watch, stop := idle.Watch(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url(m, d), nil)
	if err != nil {
		stop()
		return nil, err
	}
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	resp, err := s.Client.Do(req)
	if err != nil {
		stop()
		return nil, cause(ctx, err)
	}
	want := http.StatusOK
	if offset > 0 {
		want = http.StatusPartialContent
	}
	if resp.StatusCode != want {
		resp.Body.Close()
		stop()
		if resp.StatusCode == http.StatusNotFound {
			return nil, fmt.Errorf("%w: %s at %s", blob.ErrUnknown, d, m.URL)
		}
		return nil, fmt.Errorf("%s: %s", m.URL, resp.Status)
	}
	return stream{watch(resp.Body), func() error { defer stop(); return resp.Body.Close() }}, nil
}

type stream struct {
	io.Reader
	close func() error
}

func (s stream) Close() error { return s.close() }
