// Package peer keeps blobs on a quorum of masters. Secure copies a blob until
// enough masters hold it, verified and fsynced; Open reads through from any
// master that has it and keeps a verified copy. Every node runs a Service: on
// a master the local store is one of the copies, on an agent it is a cache.
//
// The wire is HTTP: GET (with Range), HEAD and PUT of /rpc/blob/<digest>,
// answered from the local store only, so that requests never travel in rings.
package peer

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"appliance/registry/blob"
	"appliance/registry/ref"

	"golang.org/x/sync/singleflight"
)

// Master is a node that holds durable copies.
type Master struct {
	URL  string // "https://<host>:<port>"; the path is ours
	Self bool   // this process
}

// Config of a Service. Store, Masters and Client are required.
type Config struct {
	Store *blob.Store
	// Masters lists the present voters, this node included if it is one. A
	// majority of them makes a blob durable.
	Masters func() []Master
	// Client authenticates both ends (mutual TLS) and has a dial timeout.
	Client *http.Client
	// Wanted lists the digests that the index refers to. On a master Run
	// fetches those that are missing here. Nil on an agent.
	Wanted func(ctx context.Context) iter.Seq[ref.Digest]
	Log    *slog.Logger // nil discards
}

const (
	// headTimeout bounds how long a dead master delays an answer.
	headTimeout = 3 * time.Second
	// maxTransfers bounds sockets, disk queues and memory (1 MiB each).
	maxTransfers = 32
	// securedFor is how long "has its copies" is believed without asking; far
	// below the grace of garbage collection.
	securedFor = 10 * time.Minute
	// maxSecured bounds that memory.
	maxSecured = 1 << 14
)

// Service implements registry.Blobs. It is safe for concurrent use.
type Service struct {
	Config
	ctx    context.Context // of transfers that outlive the request that began them
	cancel context.CancelFunc
	work   sync.WaitGroup
	slots  chan struct{}
	puts   singleflight.Group // by master and digest

	mu      sync.Mutex
	fills   map[ref.Digest]*fill
	secured map[ref.Digest]time.Time
}

// New returns a service. It works at once; Run owns what goes on behind.
func New(c Config) *Service {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{Config: c, slots: make(chan struct{}, maxTransfers), fills: map[ref.Digest]*fill{}, secured: map[ref.Digest]time.Time{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// errStopped: Run has ended; nothing new is begun.
var errStopped = fmt.Errorf("%w: this node is shutting down", blob.ErrUnavailable)

// spawn runs f in the background, if the service still runs.
func (s *Service) spawn(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return false
	}
	s.work.Go(f)
	return true
}

// stop ends all transfers and waits for them.
func (s *Service) stop() {
	s.mu.Lock()
	s.cancel()
	s.mu.Unlock()
	s.work.Wait()
}

// Stat implements registry.Blobs: here, or at any master. It touches the
// copies it finds.
func (s *Service) Stat(ctx context.Context, d ref.Digest) (blob.Info, error) {
	if err := s.Store.Touch(d); err == nil {
		return s.Store.Stat(d)
	} else if !errors.Is(err, blob.ErrUnknown) {
		return blob.Info{}, err
	}
	q, err := s.locate(ctx, d)
	if err != nil {
		return blob.Info{}, err
	}
	defer q.stop()
	first, err := q.next(ctx, true) // a wrong "unknown" costs an upload, waiting for the dead costs every push
	if err != nil {
		return blob.Info{}, err
	}
	return blob.Info{Digest: d, Size: first.size}, nil
}

// Open implements registry.Blobs. A blob that is not here, or corrupt here,
// streams from a master while it is stored.
func (s *Service) Open(ctx context.Context, d ref.Digest) (blob.Content, error) {
	c, err := s.Store.Open(d)
	if !errors.Is(err, blob.ErrUnknown) && !errors.Is(err, blob.ErrCorrupt) {
		return c, err
	}
	c, err = s.readThrough(ctx, d)
	if errors.Is(err, blob.ErrNoSpace) {
		return s.passThrough(ctx, d)
	}
	return c, err
}

// Delete implements registry.Blobs for the local copy only; a cluster deletes
// by garbage collection on every node.
func (s *Service) Delete(_ context.Context, d ref.Digest) error {
	s.mu.Lock()
	delete(s.secured, d)
	s.mu.Unlock()
	return s.Store.Delete(d)
}

func (s *Service) url(m Master, d ref.Digest) string { return m.URL + Path + string(d) }
