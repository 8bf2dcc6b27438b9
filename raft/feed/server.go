package feed

import (
	"bufio"
	"encoding/binary"
	"hash/crc32"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"appliance/node/wire"
	"appliance/raft"
)

// Master is what the server needs to know of its node (raft.Node).
type Master interface {
	Replica() *raft.Replica
	CommitIndex() uint64
	Established() bool // leads, and has applied all that was acknowledged
	Behind() bool      // may fall behind the cluster
}

const (
	streamBatch = 256 // entries in one write
	// A write of several entries says that the log is busy. The next then waits for gap, so that followers
	// are not woken for each handful; who makes one change after another is not held up.
	crowd    = 4
	gap      = 10 * time.Millisecond
	lagLimit = 2 * time.Second // a master that stays behind its follower, or the cluster, this long is left
)

// Server serves the feed of a master. Safe for concurrent use.
type Server struct {
	master Master
	ring   *ring
	log    *slog.Logger
	done   <-chan struct{}
}

// NewServer begins to publish what the master's replica applies. Streams end when done is closed.
func NewServer(m Master, log *slog.Logger, done <-chan struct{}) *Server {
	return newServer(m, log, done, newRing(ringEntries, ringBytes))
}

func newServer(m Master, log *slog.Logger, done <-chan struct{}, r *ring) *Server {
	m.Replica().Observe(r)
	return &Server{master: m, ring: r, log: log, done: done}
}

// Mount registers the feed. It answers authenticated nodes only.
func (s *Server) Mount(mux *http.ServeMux) { mux.Handle("GET "+Path, s) }

// ServeHTTP streams to one follower until it goes away.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	peer, ok := wire.PeerFrom(r.Context())
	if !ok || !peer.Known() || peer.Expired {
		http.Error(w, "only nodes of this cluster may follow", http.StatusForbidden)
		return
	}
	q := r.URL.Query()
	from, err1 := strconv.ParseUint(q.Get("from"), 10, 64)
	term, err2 := strconv.ParseUint(q.Get("term"), 10, 64)
	if err1 != nil || err2 != nil {
		http.Error(w, "from and term must be numbers", http.StatusBadRequest)
		return
	}
	st := &stream{server: s, out: bufio.NewWriterSize(w, chunk), ctl: http.NewResponseController(w), at: from, gone: r.Context().Done()}
	if q.Get("look") != "" {
		_ = st.heartbeat() // the follower sees what it misses
		return
	}
	if q.Get("snapshot") != "" || s.ring.locate(from, term) == gone {
		st.lost = true
	}
	if err := st.run(); err != nil {
		s.log.Debug("feed ended", "peer", peer.Name, "at", st.at, "err", err)
	}
}

// stream is one follower.
type stream struct {
	server *Server
	out    *bufio.Writer
	ctl    *http.ResponseController
	at     uint64 // index that the follower has after what was sent
	lost   bool   // needs a snapshot
	gone   <-chan struct{}
	buf    []byte
}

func (s *stream) run() error {
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	behind := time.Time{}
	if err := s.heartbeat(); err != nil {
		return err
	}
	for {
		if s.lost {
			if err := s.snapshot(); err != nil {
				return err
			}
		}
		items, where, wake := s.server.ring.next(s.at, streamBatch)
		switch {
		case where == gone:
			s.lost = true
			continue
		case where == ahead && s.server.master.Established():
			// The log that the follower has seen does not exist any more.
			s.lost = true
			continue
		case where != ahead:
			behind = time.Time{}
		case behind.IsZero():
			behind = time.Now()
		case time.Since(behind) > lagLimit:
			return nil
		}
		if len(items) > 0 {
			if err := s.entries(items); err != nil {
				return err
			}
			wake = closed
		}
		var rest <-chan time.Time
		if n := len(items); n >= crowd && n < streamBatch {
			wake, rest = nil, time.After(gap)
		}
		select {
		case <-s.gone:
			return nil
		case <-s.server.done:
			return nil
		case <-tick.C:
			if err := s.heartbeat(); err != nil {
				return err
			}
		case <-wake:
		case <-rest:
		}
	}
}

var closed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

func (s *stream) entries(items []item) error {
	s.arm()
	for _, it := range items {
		s.buf = appendItem(s.buf[:0], it)
		if _, err := s.out.Write(s.buf); err != nil {
			return err
		}
	}
	s.at = items[len(items)-1].Index
	return s.flush()
}

func (s *stream) heartbeat() error {
	s.arm()
	m := s.server.master
	var behind []byte
	if m.Behind() {
		behind = []byte{1}
	}
	s.buf = appendFrame(s.buf[:0], kindHeartbeat, []uint64{m.Replica().Applied(), m.CommitIndex()}, behind)
	if _, err := s.out.Write(s.buf); err != nil {
		return err
	}
	return s.flush()
}

func (s *stream) snapshot() error {
	snap, err := s.server.master.Replica().Snapshot()
	if err != nil {
		return err
	}
	defer snap.Release()
	s.arm()
	s.buf = appendFrame(s.buf[:0], kindSnapshot, []uint64{snap.Index, snap.Term}, nil)
	if _, err := s.out.Write(s.buf); err != nil {
		return err
	}
	body := &chunker{stream: s}
	if _, err := snap.WriteTo(body); err != nil {
		return err
	}
	s.buf = appendFrame(s.buf[:0], kindEnd, nil, binary.BigEndian.AppendUint32(nil, body.sum))
	if _, err := s.out.Write(s.buf); err != nil {
		return err
	}
	s.at, s.lost = snap.Index, false
	return s.flush()
}

// chunker turns the bytes of a snapshot into data frames.
type chunker struct {
	stream *stream
	sum    uint32
}

var _ io.Writer = (*chunker)(nil)

func (c *chunker) Write(b []byte) (int, error) {
	c.sum = crc32.Update(c.sum, castagnoli, b)
	for rest := b; len(rest) > 0; {
		part := rest[:min(chunk, len(rest))]
		rest = rest[len(part):]
		c.stream.arm()
		c.stream.buf = appendFrame(c.stream.buf[:0], kindData, nil, part)
		if _, err := c.stream.out.Write(c.stream.buf); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// arm gives the next writes a deadline.
func (s *stream) arm() { _ = s.ctl.SetWriteDeadline(time.Now().Add(writeLimit)) }

func (s *stream) flush() error {
	if err := s.out.Flush(); err != nil {
		return err
	}
	return s.ctl.Flush()
}
