package registry

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"appliance/registry/blob"
	"appliance/registry/ref"
)

// apiError is an answer of the OCI distribution API that is not a success.
type apiError struct {
	status  int
	code    string // of the specification's table, or UNAVAILABLE
	message string
}

func (e apiError) Error() string { return e.message }

// retryAfter is how many seconds a client waits when copies or the leader are
// out of reach; an election takes about one.
const retryAfter = "2"

// answers maps what went wrong below to what a client is told.
var answers = []struct {
	err    error
	status int
	code   string
}{
	{ref.ErrDigest, http.StatusBadRequest, "DIGEST_INVALID"},
	{ref.ErrName, http.StatusBadRequest, "NAME_INVALID"},
	{ref.ErrTag, http.StatusBadRequest, "TAG_INVALID"},
	{ref.ErrRange, http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID"},
	{ErrManifestUnknown, http.StatusNotFound, "MANIFEST_UNKNOWN"},
	{ErrNameUnknown, http.StatusNotFound, "NAME_UNKNOWN"},
	{ErrUnauthorized, http.StatusUnauthorized, "UNAUTHORIZED"},
	{ErrDenied, http.StatusForbidden, "DENIED"},
	{blob.ErrUnavailable, http.StatusServiceUnavailable, "UNAVAILABLE"},
	{context.DeadlineExceeded, http.StatusServiceUnavailable, "UNAVAILABLE"},
	{blob.ErrUnknown, http.StatusNotFound, "BLOB_UNKNOWN"},
	{blob.ErrCorrupt, http.StatusNotFound, "BLOB_UNKNOWN"},
	{blob.ErrDigest, http.StatusBadRequest, "DIGEST_INVALID"},
	{blob.ErrTooLarge, http.StatusRequestEntityTooLarge, "SIZE_INVALID"},
	{blob.ErrNoSpace, http.StatusInsufficientStorage, "DENIED"},
	{blob.ErrUploadUnknown, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN"},
	{blob.ErrUploadBusy, http.StatusConflict, "BLOB_UPLOAD_INVALID"},
	{blob.ErrTooManyUploads, http.StatusTooManyRequests, "TOOMANYREQUESTS"},
}

func answer(err error) apiError {
	var e apiError
	if errors.As(err, &e) {
		return e
	}
	for _, a := range answers {
		if errors.Is(err, a.err) {
			return apiError{a.status, a.code, err.Error()}
		}
	}
	return apiError{http.StatusInternalServerError, "UNKNOWN", "internal error, see the log of this node"}
}

// fail writes the error body of the specification. Errors without an answer of
// their own are ours and are logged.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	e := answer(err)
	if e.status == http.StatusInternalServerError && r.Context().Err() == nil {
		s.Log.Error("registry request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	switch e.status {
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		w.Header().Set("Retry-After", retryAfter)
	}
	type body struct {
		Code    string `json:"code"`
		Message string `json:"message"`
		Detail  any    `json:"detail"`
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.status)
	json.NewEncoder(w).Encode(map[string][]body{"errors": {{e.code, e.message, nil}}})
}
