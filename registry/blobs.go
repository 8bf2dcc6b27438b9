package registry

import (
	"net/http"
	"strconv"
	"time"

	"appliance/registry/blob"
	"appliance/registry/internal/idle"
)

func (s *Server) getBlob(w http.ResponseWriter, r *http.Request, at route) error {
	h := w.Header()
	if r.Method == http.MethodHead {
		info, err := s.Blobs.Stat(r.Context(), at.digest())
		if err != nil {
			return err
		}
		h.Set("Content-Length", itoa(info.Size))
		h.Set("Accept-Ranges", "bytes")
		setContent(h, string(info.Digest), "application/octet-stream")
		return nil
	}
	c, err := s.Blobs.Open(r.Context(), at.digest())
	if err != nil {
		return err
	}
	defer c.Close()
	setContent(h, string(c.Digest), "application/octet-stream")
	serve(w, r, c)
	return nil
}

// setContent: what a digest names never changes.
func setContent(h http.Header, digest, mediaType string) {
	h.Set("Content-Type", mediaType)
	h.Set("Docker-Content-Digest", digest)
	h.Set("ETag", `"`+digest+`"`)
}

// serve answers ranges and conditions (RFC 9110) and uses sendfile for files.
// A read error in the middle cuts the connection, so that no client takes a
// part for the whole.
func serve(w http.ResponseWriter, r *http.Request, c blob.Content) {
	http.ServeContent(idle.NewWriter(w), r, "", time.Time{}, c.ReadSeekCloser)
}

func (s *Server) deleteBlob(w http.ResponseWriter, r *http.Request, at route) error {
	if !s.DeleteBlobs {
		return apiError{http.StatusMethodNotAllowed, "UNSUPPORTED", "blobs are removed by garbage collection: delete the manifest that refers to this one"}
	}
	if err := s.Blobs.Delete(r.Context(), at.digest()); err != nil {
		return err
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
