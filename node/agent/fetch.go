package agent

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"appliance/node/model"
	"appliance/node/runtime"
)

const (
	// fetchTimeout bounds one download.
	fetchTimeout = 15 * time.Minute
	// maxFetch bounds one download and one unpacked archive.
	maxFetch = 8 << 30
	// maxEntries bounds the files of an archive.
	maxEntries = 100_000
)

// errArtifact: the server does not have the artifact; asking again is no use.
var errArtifact = errors.New("artifact not found")

// fetcher downloads artifacts; it has no overall timeout, the context has.
var fetcher = &http.Client{Transport: &http.Transport{ResponseHeaderTimeout: time.Minute, Proxy: http.ProxyFromEnvironment}}

// fetch brings a task's artifacts into its sandbox, one after the other, as
// Mesos' fetcher does: http and https, optionally executable, tar archives
// unpacked. Names come from the framework and stay inside the sandbox.
func fetch(ctx context.Context, sandbox string, uris []model.URI) error {
	if len(uris) == 0 {
		return nil
	}
	root, err := os.OpenRoot(sandbox)
	if err != nil {
		return err
	}
	defer root.Close()
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	for _, u := range uris {
		if err := fetchOne(ctx, root, u); err != nil {
			return fmt.Errorf("fetch %s: %w", u.Value, err)
		}
	}
	return nil
}

func fetchOne(ctx context.Context, root *os.Root, u model.URI) error {
	from, err := url.Parse(u.Value)
	if err != nil || from.Scheme != "http" && from.Scheme != "https" {
		return runtime.Fail(runtime.ErrInvalid, errors.New("only http and https addresses are fetched"), "artifact")
	}
	name := u.File
	if name == "" {
		name = path.Base(from.Path)
	}
	if !filepath.IsLocal(name) {
		return runtime.Fail(runtime.ErrInvalid, fmt.Errorf("%q leads out of the sandbox", name), "artifact")
	}
	if dir := path.Dir(name); dir != "." {
		if err := root.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	mode := os.FileMode(0o644)
	if u.Executable {
		mode = 0o755
	}
	if err := download(ctx, root, from.String(), name, mode); err != nil {
		return err
	}
	if u.Extract && !u.Executable {
		return extract(root, name)
	}
	return nil
}

func download(ctx context.Context, root *os.Root, from, name string, mode os.FileMode) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return err
	}
	resp, err := fetcher.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode >= 400 && resp.StatusCode < 500:
		return fmt.Errorf("%w: the server answered %s", errArtifact, resp.Status)
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("the server answered %s", resp.Status)
	}
	return writeTo(root, name, mode, resp.Body)
}

func writeTo(root *os.Root, name string, mode os.FileMode, r io.Reader) error {
	f, err := root.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, io.LimitReader(r, maxFetch+1))
	if err == nil && n > maxFetch {
		err = fmt.Errorf("%s has more than %d bytes", name, int64(maxFetch))
	}
	return errors.Join(err, f.Close())
}

// extract unpacks tar archives, plain or with gzip; anything else is left as
// it came.
func extract(root *os.Root, name string) error {
	gz := strings.HasSuffix(name, ".tar.gz") || strings.HasSuffix(name, ".tgz")
	if !gz && !strings.HasSuffix(name, ".tar") {
		return nil
	}
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	var r io.Reader = f
	if gz {
		if r, err = gzip.NewReader(f); err != nil {
			return err
		}
	}
	archive := tar.NewReader(io.LimitReader(r, maxFetch))
	for range maxEntries {
		h, err := archive.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := unpack(root, h, archive); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s has more than %d entries", name, maxEntries)
}

// unpack makes one entry. The root refuses names and links that lead out.
func unpack(root *os.Root, h *tar.Header, r io.Reader) error {
	name := path.Clean(h.Name)
	if name == "." {
		return nil
	}
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return root.MkdirAll(name, 0o755)
	case tar.TypeReg:
		return writeTo(root, name, os.FileMode(h.Mode)&0o755, r)
	case tar.TypeSymlink:
		if !filepath.IsLocal(path.Join(path.Dir(name), h.Linkname)) {
			return fmt.Errorf("link %s leads out of the sandbox", name)
		}
		return root.Symlink(h.Linkname, name)
	}
	return nil // devices and the like have no place in a sandbox
}
