// Package server is an NFSv4.1 server (RFC 8881) for named volumes. A connection presents exactly
// one volume, whose root is the root file handle; state, leases and grace are per volume, so that
// a volume can move to another node alone.
package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"appliance/nfs/rpc"
	"appliance/nfs/store"
)

// Errors of the volume API. Each is wrapped with the volume's name.
var (
	ErrNoVolume = errors.New("no such volume")        // it was never created here, or removed
	ErrExists   = errors.New("volume exists already") // choose another name
	ErrBusy     = errors.New("volume is in use")      // unmount it everywhere, then remove it
	ErrName     = errors.New("bad volume name")       // see volumeName
	ErrDenied   = errors.New("access denied")         // by Options.Authorize
)

// Defaults of Options.
const (
	DefaultLease = 20 * time.Second // a dead client's locks block others at most this long
	DefaultGrace = 90 * time.Second // upper bound; grace ends earlier when everybody has reclaimed
	helloTimeout = 10 * time.Second // a peer that says nothing costs a goroutine this long
)

// Options of a server. The zero value is usable.
type Options struct {
	Log   *slog.Logger
	Now   func() time.Time
	Lease time.Duration
	Grace time.Duration
	// Authorize decides whether peer may use volume; nil lets everybody. Its error is shown to the peer.
	Authorize func(peer, volume string) error
	// Shipper and Epoch, when set, are asked for each volume that is opened. See package replica.
	Shipper func(volume string) (store.Shipper, uint64)
	// Reserve and Checkpoint are store.Options of every volume; 0 means the default.
	Reserve    uint64
	Checkpoint int64
}

// VolumeOptions are stored with a volume when it is created.
type VolumeOptions struct {
	Mode      uint32 `json:"mode,omitempty"` // of the root directory; 0 means 0755
	UID       uint32 `json:"uid,omitempty"`
	GID       uint32 `json:"gid,omitempty"`
	MaxBytes  uint64 `json:"max_bytes,omitempty"`  // 0 means no quota
	AllSquash bool   `json:"all_squash,omitempty"` // every caller acts as UID and GID
}

// Server serves the volumes below a directory. Methods are safe for concurrent use.
type Server struct {
	dir string
	o   Options
	mu  sync.Mutex
	ex  map[string]*export
	bad map[string]error // volumes that cannot be opened, and why
}

var volumeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// Open opens every volume in dir. One that cannot be opened does not keep the others from being
// served: it is logged, listed, shown in Stats, and answers its users with the reason.
func Open(dir string, o Options) (*Server, error) {
	o = o.withDefaults()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, o: o, ex: map[string]*export{}, bad: map[string]error{}}
	for _, e := range entries {
		if !volumeName.MatchString(e.Name()) {
			continue // half created or half removed
		}
		x, err := s.openVolume(e.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			o.Log.Error("volume cannot be served", "volume", e.Name(), "err", err)
			s.bad[e.Name()] = err
			continue
		}
		s.ex[e.Name()] = x
	}
	return s, nil
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Lease == 0 {
		o.Lease = DefaultLease
	}
	if o.Grace == 0 {
		o.Grace = DefaultGrace
	}
	return o
}

func (s *Server) openVolume(name string) (*export, error) {
	dir := filepath.Join(s.dir, name)
	f, err := readVolumeFile(dir)
	if err != nil {
		return nil, fmt.Errorf("volume %s: %w", name, err)
	}
	so := store.Options{Log: s.o.Log, Now: s.o.Now, Reserve: s.o.Reserve, Checkpoint: s.o.Checkpoint,
		MaxBytes: f.Options.MaxBytes, Mode: f.Options.Mode, UID: f.Options.UID, GID: f.Options.GID}
	if s.o.Shipper != nil {
		so.Shipper, so.Epoch = s.o.Shipper(name)
	}
	v, err := store.Open(filepath.Join(dir, "store"), so)
	if err != nil {
		return nil, fmt.Errorf("volume %s: %w", name, err)
	}
	return newExport(name, v, f, s.o), nil
}

// CreateVolume makes an empty volume. It appears whole or not at all.
func (s *Server) CreateVolume(name string, vo VolumeOptions) error {
	if !volumeName.MatchString(name) {
		return fmt.Errorf("%w %q: use letters, digits, '.', '_' and '-', at most 128, starting with a letter or digit", ErrName, name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ex[name] != nil || s.bad[name] != nil {
		return fmt.Errorf("%w: %s", ErrExists, name)
	}
	f := volumeFile{ID: make([]byte, volumeIDLen), Options: vo}
	rand.Read(f.ID)
	if err := writeVolumeFile(filepath.Join(s.dir, name), f); err != nil {
		return fmt.Errorf("create volume %s: %w", name, err)
	}
	x, err := s.openVolume(name)
	if err != nil {
		return err
	}
	s.ex[name] = x
	s.o.Log.Info("volume created", "volume", name)
	return nil
}

// RemoveVolume deletes a volume with its data. It refuses while clients have files open.
func (s *Server) RemoveVolume(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.ex[name]
	if x == nil {
		return s.missing(name)
	}
	if n := x.openCount(); n > 0 {
		return fmt.Errorf("%w: %s has %d open files", ErrBusy, name, n)
	}
	delete(s.ex, name)
	x.close()
	old := filepath.Join(s.dir, name)
	gone := filepath.Join(s.dir, ".gone-"+name)
	if err := os.RemoveAll(gone); err != nil {
		return err
	}
	if err := os.Rename(old, gone); err != nil {
		return err
	}
	s.o.Log.Info("volume removed", "volume", name)
	return os.RemoveAll(gone)
}

// missing says why there is no export. Called with mu held.
func (s *Server) missing(name string) error {
	if err := s.bad[name]; err != nil {
		return err
	}
	return fmt.Errorf("%w: %s", ErrNoVolume, name)
}

// Damaged lists the files of volumes that are not as they were written, and the volumes that cannot be opened.
func (s *Server) Damaged() (out []store.Damage) {
	s.mu.Lock()
	open := slices.Collect(maps.Values(s.ex))
	for name, err := range s.bad {
		out = append(out, store.Damage{File: filepath.Join(s.dir, name), Why: err.Error(), Fix: "restore the volume from a backup, then start the node again"})
	}
	s.mu.Unlock()
	for _, x := range open {
		out = append(out, x.vol.Damaged()...)
	}
	slices.SortFunc(out, func(a, b store.Damage) int { return strings.Compare(a.File, b.File) })
	return out
}

// Volumes lists the names, sorted.
func (s *Server) Volumes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for n := range s.ex {
		out = append(out, n)
	}
	for n := range s.bad {
		out = append(out, n)
	}
	sort.Strings(out)
	return out
}

func (s *Server) export(name string) (*export, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.ex[name]
	if x == nil {
		return nil, s.missing(name)
	}
	return x, nil
}

// Stats describes a volume.
type Stats struct {
	store.Usage
	Clients, Opens, Locks int
	Grace                 bool
	Failed                string // why the volume stopped, or empty
}

// Stats returns a volume's figures.
func (s *Server) Stats(name string) (Stats, error) {
	x, err := s.export(name)
	switch {
	case err != nil && !errors.Is(err, ErrNoVolume):
		return Stats{Failed: err.Error()}, nil
	case err != nil:
		return Stats{}, err
	}
	return x.stats(), nil
}

// Fence takes all state away from a client (a node that the cluster declared dead) at once instead
// of after its lease. When Fence returns, its locks are free and it cannot reclaim them.
func (s *Server) Fence(volume, clientID string) error {
	x, err := s.export(volume)
	if err != nil {
		return err
	}
	return x.fence(clientID)
}

// Serve reads the connection's hello line, checks access, and serves the volume it names until the
// connection ends or ctx is done. It owns and closes c.
func (s *Server) Serve(ctx context.Context, c net.Conn, peer string) error {
	defer c.Close()
	c.SetDeadline(time.Now().Add(helloTimeout))
	volume, err := rpc.ReadHello(c)
	if err != nil {
		return err
	}
	x, err := s.admit(peer, volume)
	if werr := rpc.WriteHelloReply(c, err); err != nil || werr != nil {
		return errors.Join(err, werr)
	}
	c.SetDeadline(time.Time{})
	return x.serve(ctx, c, peer)
}

// ServeVolume is Serve for a connection without hello line, such as a kernel client's own.
func (s *Server) ServeVolume(ctx context.Context, c net.Conn, peer, volume string) error {
	defer c.Close()
	x, err := s.admit(peer, volume)
	if err != nil {
		return err
	}
	return x.serve(ctx, c, peer)
}

func (s *Server) admit(peer, volume string) (*export, error) {
	if s.o.Authorize != nil {
		if err := s.o.Authorize(peer, volume); err != nil {
			return nil, fmt.Errorf("%w: %s for %s: %w", ErrDenied, volume, peer, err)
		}
	}
	x, err := s.export(volume)
	if err != nil {
		return nil, err
	}
	return x, x.vol.Err()
}

// Close ends all connections and closes the volumes with a checkpoint.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for n, x := range s.ex {
		errs = append(errs, x.close())
		delete(s.ex, n)
	}
	return errors.Join(errs...)
}
