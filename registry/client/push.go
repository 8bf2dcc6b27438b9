package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"appliance/registry"
	"appliance/registry/internal/idle"
	"appliance/registry/ref"
)

const (
	// attempts without a byte of progress before a push gives up; with the
	// pauses about 15 s, more than an election or a restart takes.
	attempts = 6
	// firstPause doubles with each attempt.
	firstPause = 250 * time.Millisecond
)

// Source holds an image, by digest; build.Layout is one.
type Source interface {
	Open(d ref.Digest) (io.ReadSeekCloser, error)
}

// Progress of a push, told after each piece of a blob and once per blob.
type Progress struct {
	Digest    ref.Digest
	MediaType string
	Sent      int64 // bytes of this blob that the registry has
	Size      int64
	Existed   bool // the registry had the blob already
	Done      bool // the registry has acknowledged the blob
}

// Push sends the manifest root and all it refers to, children first, and
// points tag at root; without a tag it is pushed by digest. Blobs that the
// registry has are not sent. Progress may be nil; it is called by one goroutine
// at a time, and not after Push has returned.
func (c *Client) Push(ctx context.Context, from Source, root registry.Descriptor, repository, tag string, progress func(Progress)) error {
	if progress == nil {
		progress = func(Progress) {}
	}
	if err := ref.CheckName(repository); err != nil {
		return err
	}
	object := string(root.Digest)
	if tag != "" {
		if err := ref.CheckTag(tag); err != nil {
			return err
		}
		object = tag
	}
	return c.pushManifest(ctx, from, root, repository, object, progress, 0)
}

func (c *Client) pushManifest(ctx context.Context, from Source, at registry.Descriptor, repository, object string, progress func(Progress), depth int) error {
	const deepest = 4 // an index of indexes is rare; a cycle is an attack
	if depth > deepest {
		return fmt.Errorf("image indexes nested deeper than %d", deepest)
	}
	body, doc, err := readManifest(from, at)
	if err != nil {
		return err
	}
	for _, child := range doc.Manifests {
		if err := c.pushManifest(ctx, from, child, repository, string(child.Digest), progress, depth+1); err != nil {
			return err
		}
	}
	blobs := doc.Layers
	if doc.Config != nil {
		blobs = append(blobs, *doc.Config)
	}
	for _, b := range blobs {
		if err := c.pushBlob(ctx, from, b, repository, progress); err != nil {
			return err
		}
	}
	return c.PutManifest(ctx, repository, object, at.MediaType, body)
}

func readManifest(from Source, at registry.Descriptor) ([]byte, registry.Document, error) {
	var doc registry.Document
	r, err := from.Open(at.Digest)
	if err != nil {
		return nil, doc, err
	}
	defer r.Close()
	body, err := io.ReadAll(io.LimitReader(r, maxManifest))
	if err != nil {
		return nil, doc, err
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return nil, doc, fmt.Errorf("manifest %s: %w", at.Digest, err)
	}
	return body, doc, nil
}

func (c *Client) pushBlob(ctx context.Context, from Source, d registry.Descriptor, repository string, progress func(Progress)) error {
	p := Progress{Digest: d.Digest, MediaType: d.MediaType, Size: d.Size}
	existed := false
	err := c.retry(ctx, func() error {
		resp, err := c.do(ctx, http.MethodHead, blobPath(repository, d.Digest), nil, nil)
		if err == nil {
			existed = true
			return resp.Body.Close()
		}
		if errors.Is(err, ErrUnknown) {
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	if existed {
		p.Sent, p.Existed, p.Done = d.Size, true, true
		progress(p)
		return nil
	}
	u := &upload{c: c, repository: repository, digest: d.Digest, from: from, size: d.Size, sent: func(n int64) { p.Sent = n; progress(p) }}
	if err := u.run(ctx); err != nil {
		return fmt.Errorf("push %s: %w", d.Digest, err)
	}
	p.Sent, p.Done = d.Size, true
	progress(p)
	return nil
}

// upload is one blob on its way. It begins again where the registry says that
// it stopped.
type upload struct {
	c          *Client
	repository string
	digest     ref.Digest
	from       Source
	size       int64
	sent       func(int64)

	location string
	offset   int64 // what the registry has
}

func (u *upload) run(ctx context.Context) error {
	for tries := 0; ; tries++ {
		before := u.offset
		err := u.step(ctx)
		if err == nil {
			return nil
		}
		if u.offset > before {
			tries = 0
		}
		if ctx.Err() != nil || !transient(err) || tries+1 >= attempts {
			return err
		}
		if err := pause(ctx, tries); err != nil {
			return err
		}
		u.ask(ctx, err)
	}
}

// step brings the upload from its offset to the end.
func (u *upload) step(ctx context.Context) error {
	if u.location == "" {
		resp, err := u.c.do(ctx, http.MethodPost, "/v2/"+u.repository+"/blobs/uploads/", nil, nil)
		if err != nil {
			return err
		}
		resp.Body.Close()
		u.location, u.offset = resp.Header.Get("Location"), 0
	}
	if u.offset < u.size {
		if err := u.patch(ctx); err != nil {
			return err
		}
	}
	resp, err := u.c.do(ctx, http.MethodPut, withDigest(u.location, u.digest), nil, nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

func (u *upload) patch(ctx context.Context) error {
	// Opened anew for each try: the transport may go on reading the body of
	// a request that has failed.
	file, err := u.from.Open(u.digest)
	if err != nil {
		return err
	}
	if _, err := file.Seek(u.offset, io.SeekStart); err != nil {
		file.Close()
		return err
	}
	ctx, watch, stop := idle.Watch(ctx)
	defer stop()
	body := &counted{r: watch(io.LimitReader(file, u.size-u.offset)), close: file.Close, n: u.offset, sent: u.sent}
	defer body.silence()
	resp, err := u.c.do(ctx, http.MethodPatch, u.location, body, func(r *http.Request) {
		r.ContentLength = u.size - u.offset
		r.Header.Set("Content-Type", "application/octet-stream")
		r.Header.Set("Content-Range", fmt.Sprintf("%d-%d", u.offset, u.size-1))
	})
	if err != nil {
		return err
	}
	resp.Body.Close()
	u.location, u.offset = resp.Header.Get("Location"), u.size
	return nil
}

// ask learns from the registry how far the upload is after a failure. An
// upload that is gone, or of which both sides think differently, begins anew.
func (u *upload) ask(ctx context.Context, failure error) {
	var refused statusError
	if errors.As(failure, &refused) && refused.status == http.StatusRequestedRangeNotSatisfiable {
		u.location = ""
	}
	if u.location == "" {
		u.offset = 0
		return
	}
	resp, err := u.c.do(ctx, http.MethodGet, u.location, nil, nil)
	if errors.Is(err, ErrUnknown) {
		u.location, u.offset = "", 0
	}
	if err != nil {
		return
	}
	resp.Body.Close()
	// "0-0" means nothing or one byte; take it for nothing and let 416 tell.
	if _, last, err := ref.ParseRange(resp.Header.Get("Range")); err == nil && last > 0 && last < u.size {
		u.offset = last + 1
	} else {
		u.offset = 0
	}
}

// counted reports what is read until it is silenced.
type counted struct {
	r     io.Reader
	close func() error

	mu   sync.Mutex
	n    int64
	sent func(int64) // nil when silenced
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	if n > 0 && c.sent != nil {
		c.n += int64(n)
		c.sent(c.n)
	}
	return n, err
}

func (c *counted) Close() error { return c.close() }

func (c *counted) silence() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent = nil
}

func withDigest(location string, d ref.Digest) string {
	separator := "?"
	if strings.Contains(location, "?") {
		separator = "&"
	}
	return location + separator + "digest=" + url.QueryEscape(string(d))
}

// transient says whether trying again may help: connection trouble, a busy
// registry, a quorum that is away, an upload that is elsewhere than thought.
func transient(err error) bool {
	var refused statusError
	if !errors.As(err, &refused) {
		return !errors.Is(err, context.Canceled) && !errors.Is(err, ErrAddress) && !errors.Is(err, fs.ErrNotExist)
	}
	switch refused.status {
	case http.StatusInsufficientStorage:
		return false
	case http.StatusNotFound, http.StatusConflict, http.StatusRequestedRangeNotSatisfiable, http.StatusTooManyRequests:
		return true
	}
	return refused.status >= 500
}

// retry repeats f, which must be idempotent, while it fails for a while only.
func (c *Client) retry(ctx context.Context, f func() error) error {
	for tries := 0; ; tries++ {
		err := f()
		if err == nil || ctx.Err() != nil || errors.Is(err, ErrUnknown) || !transient(err) || tries+1 >= attempts {
			return err
		}
		if err := pause(ctx, tries); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context, tries int) error {
	t := time.NewTimer(firstPause << tries)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
