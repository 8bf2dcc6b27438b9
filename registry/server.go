// Package registry is an OCI distribution 1.1 registry on net/http. It keeps
// metadata in an Index (the cluster's log) and bytes in Blobs (copies on
// several masters); both are interfaces, so the same handler serves a master,
// an agent's loopback endpoint and a test.
package registry

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"appliance/registry/blob"
	"appliance/registry/ref"
)

// Blobs finds, reads and secures blobs wherever they are. See Local and
// package peer.
type Blobs interface {
	// Stat says whether the blob can be read, and keeps it from being
	// collected for a while; blob.ErrUnknown.
	Stat(ctx context.Context, d ref.Digest) (blob.Info, error)
	// Open reads the blob; blob.ErrUnknown, blob.ErrUnavailable.
	Open(ctx context.Context, d ref.Digest) (blob.Content, error)
	// Secure returns once the blob has all the durable copies it needs:
	// blob.ErrUnknown if nobody has it, blob.ErrUnavailable if too few places
	// can be reached.
	Secure(ctx context.Context, d ref.Digest) (blob.Info, error)
	// Delete removes the blob where it can be reached.
	Delete(ctx context.Context, d ref.Digest) error
}

// Config of a Server. Blobs, Uploads and Index are required.
type Config struct {
	Blobs   Blobs
	Uploads *blob.Store // where uploads land first, on this node
	Index   Index
	// Authorize guards every request. Nil means LoopbackPull(nil): pull from
	// loopback, and nothing else.
	Authorize Authorizer
	// DeleteBlobs lets clients delete blobs. Leave it off in a cluster, where
	// only garbage collection can know that nobody is about to refer to one.
	DeleteBlobs bool
	Now         func() time.Time // nil means time.Now
	Log         *slog.Logger     // nil discards
}

// Server is the registry's http.Handler for /v2/ and /token.
type Server struct{ Config }

// New returns a server. It does nothing until it is asked; call Run beside it.
func New(c Config) *Server {
	if c.Authorize == nil {
		c.Authorize = LoopbackPull(nil)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{c}
}

// uploadIdle: an interrupted upload can be resumed for a working day.
const uploadIdle = 12 * time.Hour

// Run throws away abandoned uploads until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Minute)
	defer tick.Stop()
	for {
		if n, err := s.Uploads.Expire(uploadIdle); err != nil {
			s.Log.Warn("abandoned uploads stay on disk", "error", err)
		} else if n > 0 {
			s.Log.Info("abandoned uploads thrown away", "count", n)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.URL.Path == "/token" {
		s.serveToken(w, r)
		return
	}
	at, err := parseRoute(r.URL.Path)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	r = normalizeAuthorization(r)
	if err := s.authorize(w, r, at.repository, at.action(r.Method)); err != nil {
		s.fail(w, r, err)
		return
	}
	if err := s.dispatch(w, r, at); err != nil {
		s.fail(w, r, err)
	}
}

type handler func(http.ResponseWriter, *http.Request, route) error

func (s *Server) dispatch(w http.ResponseWriter, r *http.Request, at route) error {
	methods := map[resource]map[string]handler{
		ping:      {"GET": s.ping, "HEAD": s.ping},
		catalog:   {"GET": s.listRepositories},
		tags:      {"GET": s.listTags},
		referrers: {"GET": s.listReferrers},
		manifests: {"GET": s.getManifest, "HEAD": s.getManifest, "PUT": s.putManifest, "DELETE": s.deleteManifest},
		blobs:     {"GET": s.getBlob, "HEAD": s.getBlob, "DELETE": s.deleteBlob},
		uploads:   {"POST": s.startUpload},
		upload:    {"GET": s.uploadStatus, "HEAD": s.uploadStatus, "PATCH": s.patchUpload, "PUT": s.putUpload, "DELETE": s.cancelUpload},
	}[at.resource]
	h, ok := methods[r.Method]
	if !ok {
		return apiError{http.StatusMethodNotAllowed, "UNSUPPORTED", "the method " + r.Method + " is not supported here"}
	}
	return h(w, r, at)
}

func (s *Server) ping(w http.ResponseWriter, _ *http.Request, _ route) error {
	w.Header().Set("Content-Type", "application/json")
	w.Write([]byte("{}"))
	return nil
}

// Local serves blobs from one store only: one copy is enough.
type Local struct{ Store *blob.Store }

// Stat implements Blobs.
func (l Local) Stat(_ context.Context, d ref.Digest) (blob.Info, error) {
	if err := l.Store.Touch(d); err != nil {
		return blob.Info{}, err
	}
	return l.Store.Stat(d)
}

// Open implements Blobs.
func (l Local) Open(_ context.Context, d ref.Digest) (blob.Content, error) { return l.Store.Open(d) }

// Secure implements Blobs.
func (l Local) Secure(ctx context.Context, d ref.Digest) (blob.Info, error) { return l.Stat(ctx, d) }

// Delete implements Blobs.
func (l Local) Delete(_ context.Context, d ref.Digest) error { return l.Store.Delete(d) }
