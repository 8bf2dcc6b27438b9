package peer

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"appliance/registry/blob"
	"appliance/registry/internal/idle"
	"appliance/registry/ref"
)

// Path is where the handler is mounted on the port between nodes.
const Path = "/rpc/blob/"

// Handler answers other nodes from the local store. Who may ask is decided by
// the port's mutual TLS.
func (s *Service) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d, err := ref.ParseDigest(strings.TrimPrefix(r.URL.Path, Path))
		if err == nil {
			switch r.Method {
			case http.MethodHead:
				err = s.head(w, d)
			case http.MethodGet:
				err = s.get(w, r, d)
			case http.MethodPut:
				err = s.put(w, r, d)
			default:
				w.Header().Set("Allow", "GET, HEAD, PUT")
				http.Error(w, "GET, HEAD or PUT a blob", http.StatusMethodNotAllowed)
				return
			}
		}
		if err != nil {
			http.Error(w, err.Error(), status(err))
		}
	})
}

// head also touches: who asks is about to rely on this copy.
func (s *Service) head(w http.ResponseWriter, d ref.Digest) error {
	if err := s.Store.Touch(d); err != nil {
		return err
	}
	info, err := s.Store.Stat(d)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Length", strconv.FormatInt(info.Size, 10))
	return nil
}

func (s *Service) get(w http.ResponseWriter, r *http.Request, d ref.Digest) error {
	c, err := s.Store.Open(d)
	if err != nil {
		return err
	}
	defer c.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(idle.NewWriter(w), r, "", time.Time{}, c.ReadSeekCloser)
	return nil
}

func (s *Service) put(w http.ResponseWriter, r *http.Request, d ref.Digest) error {
	if _, err := s.Store.Put(d, idle.Body(w, r)); err != nil {
		return err
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

// statuses carry the store's errors over the wire and back.
var statuses = map[int]error{
	http.StatusNotFound:              blob.ErrUnknown,
	http.StatusInsufficientStorage:   blob.ErrNoSpace,
	http.StatusRequestEntityTooLarge: blob.ErrTooLarge,
	http.StatusBadRequest:            ref.ErrDigest,
	http.StatusUnprocessableEntity:   blob.ErrDigest,
}

func status(err error) int {
	for code, known := range statuses {
		if errors.Is(err, known) {
			return code
		}
	}
	if errors.Is(err, blob.ErrCorrupt) {
		return http.StatusNotFound
	}
	return http.StatusInternalServerError
}
