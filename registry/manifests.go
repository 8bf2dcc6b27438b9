package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"appliance/registry/blob"
	"appliance/registry/internal/idle"
	"appliance/registry/ref"

	"golang.org/x/sync/errgroup"
)

func (s *Server) getManifest(w http.ResponseWriter, r *http.Request, at route) error {
	m, err := s.Index.Manifest(r.Context(), at.repository, at.object)
	if err != nil {
		return err
	}
	if r.Method == http.MethodHead {
		setContent(w.Header(), string(m.Digest), m.MediaType)
		w.Header().Set("Content-Length", itoa(m.Size))
		return nil
	}
	c, err := s.Blobs.Open(r.Context(), m.Digest)
	if errors.Is(err, blob.ErrUnknown) || errors.Is(err, blob.ErrCorrupt) {
		return fmt.Errorf("%w: no node that answers holds the bytes of %s", blob.ErrUnavailable, m.Digest)
	}
	if err != nil {
		return err
	}
	defer c.Close()
	setContent(w.Header(), string(m.Digest), m.MediaType)
	serve(w, r, c)
	return nil
}

func (s *Server) putManifest(w http.ResponseWriter, r *http.Request, at route) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, io.NopCloser(idle.Body(w, r)), maxManifest))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return apiError{http.StatusRequestEntityTooLarge, "SIZE_INVALID", "a manifest has at most 4 MiB"}
	case err != nil:
		return apiError{http.StatusBadRequest, "MANIFEST_INVALID", err.Error()}
	}
	m, tag, err := s.describe(r, at, body)
	if err != nil {
		return err
	}
	if _, err := s.Uploads.Put(m.Digest, bytes.NewReader(body)); err != nil {
		return err
	}
	if _, err := s.Blobs.Secure(r.Context(), m.Digest); err != nil {
		return err
	}
	if err := s.Index.PutManifest(r.Context(), m, tag); err != nil {
		return err
	}
	h := w.Header()
	h.Set("Location", "/v2/"+at.repository+"/manifests/"+string(m.Digest))
	h.Set("Docker-Content-Digest", string(m.Digest))
	if m.Subject != "" {
		h.Set("OCI-Subject", string(m.Subject))
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

// describe checks the body and that all it refers to has its copies.
func (s *Server) describe(r *http.Request, at route, body []byte) (m Manifest, tag string, err error) {
	doc, err := parseDocument(body, r.Header.Get("Content-Type"))
	if err != nil {
		return m, "", err
	}
	digest := ref.FromBytes(body)
	if strings.Contains(at.object, ":") {
		h := at.digest().Hash()
		h.Write(body)
		if digest = ref.FromHash(h); digest != at.digest() {
			return m, "", fmt.Errorf("%w: the path says %s, the manifest is %s", blob.ErrDigest, at.object, digest)
		}
	} else {
		tag = at.object
	}
	if err := s.checkReferences(r.Context(), at.repository, doc); err != nil {
		return m, "", err
	}
	user, _, _ := r.BasicAuth()
	m = Manifest{
		Repository: at.repository, Digest: digest, MediaType: doc.MediaType, Size: int64(len(body)),
		ArtifactType: doc.artifactType(), Annotations: doc.annotations(), PushedBy: user, PushedAt: s.Now().UTC(),
	}
	if doc.Subject != nil {
		m.Subject = doc.Subject.Digest
	}
	for _, d := range doc.blobs() {
		m.Blobs = append(m.Blobs, d.Digest)
	}
	for _, d := range doc.Manifests {
		m.Manifests = append(m.Manifests, d.Digest)
	}
	return m, tag, nil
}

// checkReferences holds the registry's first invariant: a manifest in the
// index never refers to a blob without its copies.
func (s *Server) checkReferences(ctx context.Context, repository string, doc Document) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8) // enough to hide round trips
	for _, d := range doc.blobs() {
		g.Go(func() error {
			info, err := s.Blobs.Secure(ctx, d.Digest)
			return checkSize(d, info.Size, err, blob.ErrUnknown)
		})
	}
	for _, d := range doc.Manifests {
		g.Go(func() error {
			child, err := s.Index.Manifest(ctx, repository, string(d.Digest))
			if errors.Is(err, ErrNameUnknown) {
				err = ErrManifestUnknown
			}
			return checkSize(d, child.Size, err, ErrManifestUnknown)
		})
	}
	return g.Wait()
}

func checkSize(d Descriptor, size int64, err, unknown error) error {
	switch {
	case errors.Is(err, unknown):
		return apiError{http.StatusNotFound, "MANIFEST_BLOB_UNKNOWN", fmt.Sprintf("%s is not in this registry: push it before the manifest that refers to it", d.Digest)}
	case err != nil:
		return err
	case size != d.Size:
		return invalid("%s has %d bytes, the manifest says %d", d.Digest, size, d.Size)
	}
	return nil
}

func (s *Server) deleteManifest(w http.ResponseWriter, r *http.Request, at route) error {
	var err error
	if strings.Contains(at.object, ":") {
		err = s.Index.DeleteManifest(r.Context(), at.repository, at.digest())
	} else {
		err = s.Index.Untag(r.Context(), at.repository, at.object)
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}
