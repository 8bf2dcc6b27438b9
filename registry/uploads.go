package registry

import (
	"errors"
	"fmt"
	"net/http"

	"appliance/registry/blob"
	"appliance/registry/internal/idle"
	"appliance/registry/ref"
)

// startUpload is POST: a mount, a whole blob in one request, or a new session.
func (s *Server) startUpload(w http.ResponseWriter, r *http.Request, at route) error {
	q := r.URL.Query()
	if q.Has("mount") && s.mount(w, r, at) {
		return nil
	}
	if q.Has("digest") {
		d, err := ref.ParseDigest(q.Get("digest"))
		if err != nil {
			return err
		}
		if _, err := s.Uploads.Put(d, idle.Body(w, r)); err != nil {
			return err
		}
		return s.finish(w, r, at, d)
	}
	u, err := s.Uploads.Start()
	if err != nil {
		return err
	}
	accepted(w, at, u)
	return nil
}

// mount says whether it has answered. It never refuses: whatever stands in the
// way, the client is asked to upload, for clients give up on 403 (containerd).
func (s *Server) mount(w http.ResponseWriter, r *http.Request, at route) bool {
	q := r.URL.Query()
	d, err := ref.ParseDigest(q.Get("mount"))
	if err != nil {
		return false
	}
	if from := q.Get("from"); from != "" && s.Authorize(r.Context(), r, from, Pull) != nil {
		return false
	}
	if _, err := s.Blobs.Stat(r.Context(), d); err != nil {
		return false
	}
	created(w, at, d)
	return true
}

func accepted(w http.ResponseWriter, at route, u *blob.Upload) {
	uploadHeaders(w, at, u)
	w.WriteHeader(http.StatusAccepted)
}

// uploadHeaders tell where to go on. Location is relative, so that it holds
// for every name and scheme the node is reached by.
func uploadHeaders(w http.ResponseWriter, at route, u *blob.Upload) {
	h := w.Header()
	h.Set("Location", "/v2/"+at.repository+"/blobs/uploads/"+u.ID)
	h.Set("Docker-Upload-UUID", u.ID)
	h.Set("Range", fmt.Sprintf("0-%d", max(u.Size()-1, 0)))
}

func created(w http.ResponseWriter, at route, d ref.Digest) {
	h := w.Header()
	h.Set("Location", "/v2/"+at.repository+"/blobs/"+string(d))
	h.Set("Docker-Content-Digest", string(d))
	w.WriteHeader(http.StatusCreated)
}

// finish acknowledges a blob that is on this node's disk: only once it has all
// its copies.
func (s *Server) finish(w http.ResponseWriter, r *http.Request, at route, d ref.Digest) error {
	if _, err := s.Blobs.Secure(r.Context(), d); err != nil {
		return err
	}
	created(w, at, d)
	return nil
}

func (s *Server) uploadStatus(w http.ResponseWriter, _ *http.Request, at route) error {
	u, err := s.Uploads.Resume(at.object)
	if err != nil {
		return err
	}
	uploadHeaders(w, at, u)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) cancelUpload(w http.ResponseWriter, _ *http.Request, at route) error {
	u, err := s.Uploads.Resume(at.object)
	if err != nil {
		return err
	}
	u.Cancel()
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) patchUpload(w http.ResponseWriter, r *http.Request, at route) error {
	u, err := s.Uploads.Resume(at.object)
	if err != nil {
		return err
	}
	if err := receive(w, r, at, u); err != nil {
		return err
	}
	accepted(w, at, u)
	return nil
}

// receive appends the request's body. A chunk that does not begin where the
// upload ends is refused with 416 and the place to go on from.
func receive(w http.ResponseWriter, r *http.Request, at route, u *blob.Upload) error {
	if given := r.Header.Get("Content-Range"); given != "" {
		first, last, err := ref.ParseRange(given)
		if err == nil && first != u.Size() {
			err = fmt.Errorf("%w %q: the upload has %d bytes", ref.ErrRange, given, u.Size())
		}
		if err != nil {
			uploadHeaders(w, at, u)
			return err
		}
		if length := last - first + 1; r.ContentLength >= 0 && r.ContentLength != length {
			return apiError{http.StatusBadRequest, "SIZE_INVALID", fmt.Sprintf("Content-Range says %d bytes, Content-Length %d", length, r.ContentLength)}
		}
	}
	_, err := u.Append(idle.Body(w, r))
	if err != nil && !known(err) {
		uploadHeaders(w, at, u)
		return apiError{http.StatusBadRequest, "BLOB_UPLOAD_INVALID", err.Error()} // the client went away
	}
	return err
}

func known(err error) bool {
	for _, a := range answers {
		if errors.Is(err, a.err) {
			return true
		}
	}
	return false
}

// putUpload takes an optional last chunk and closes the session.
func (s *Server) putUpload(w http.ResponseWriter, r *http.Request, at route) error {
	d, err := ref.ParseDigest(r.URL.Query().Get("digest"))
	if err != nil {
		return err
	}
	u, err := s.Uploads.Resume(at.object)
	if errors.Is(err, blob.ErrUploadUnknown) {
		// The answer to an earlier PUT may have been lost: what it asked for
		// may be done already.
		if _, statErr := s.Uploads.Stat(d); statErr == nil {
			return s.finish(w, r, at, d)
		}
	}
	if err != nil {
		return err
	}
	if err := receive(w, r, at, u); err != nil {
		return err
	}
	if _, err := u.Commit(d); err != nil {
		return err
	}
	return s.finish(w, r, at, d)
}
