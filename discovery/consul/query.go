package consul

import (
	"bytes"
	"context"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"appliance/discovery"
	"appliance/raft/state"
)

// query is one kind of read.
type query struct {
	// tables make it a read of the state that may change with these tables;
	// without, it is a read of the catalog.
	tables []string
	// version narrows down when the answer to a catalog read may have changed;
	// nil is any change.
	version func(*discovery.Table) uint64
	// run gives the value to encode. index 0 lets the memo find it; nil is a
	// value like any other. found false answers 404.
	run func(view) (value any, index uint64, found bool, err error)
	// differs wakes on an index that is not equal rather than greater, for
	// indexes that are no numbers of the log.
	differs bool
	// text sends the bytes of a []byte value as they are.
	text bool
	// notFound is the body of a 404.
	notFound string
}

// view is one moment of what is read.
type view struct {
	table *discovery.Table
	snap  *state.Snapshot
}

// read answers a request, after a change if it asks for one.
func (s *Server) read(w http.ResponseWriter, r *http.Request, q query) error {
	o, err := readOptions(r)
	if err != nil {
		return err
	}
	if _, away := s.lastContact(); q.tables == nil && (s.cfg.Stale || away) && o.mode == "leader" {
		o.mode = "stale"
	}
	if err := s.consistent(r.Context(), o.mode); err != nil {
		return err
	}
	a, err := s.wait(r.Context(), q, o)
	if err != nil {
		return err
	}
	s.metaHeaders(w, a.index, o.mode)
	if !a.found {
		return fail(http.StatusNotFound, q.notFound)
	}
	if q.text {
		s.write(w, r, http.StatusOK, a.body)
		return nil
	}
	s.writeJSON(w, r, a.body, o.pretty)
	return nil
}

// consistent waits until this node's copy is recent enough for the mode.
// Default and consistent reads are both linearizable.
func (s *Server) consistent(ctx context.Context, mode string) error {
	if mode == "stale" || s.cfg.ReadIndex == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	index, err := s.cfg.ReadIndex(ctx)
	if err != nil {
		return errNoLeader
	}
	if err := s.cfg.Store.WaitIndex(ctx, index); err != nil {
		return errNoLeader
	}
	if err := s.cfg.Catalog.Fresh(ctx); err != nil {
		return errNoLeader
	}
	return nil
}

// wait evaluates the query, again and again until its index is past the one
// that the client knows or its time is over. An index beyond anything known
// here comes from another node or from before a restore: it is answered at
// once, and the client starts anew.
func (s *Server) wait(ctx context.Context, q query, o options) (answer, error) {
	if o.index > 0 {
		if s.blocking.Add(1) > maxBlocking {
			s.blocking.Add(-1)
			return answer{}, fail(http.StatusTooManyRequests, "Too many blocking queries on this node: spread clients over more nodes")
		}
		defer s.blocking.Add(-1)
		jitter := time.Duration(rand.Int64N(int64(o.wait)/16 + 1))
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.wait+jitter)
		defer cancel()
	}
	e := s.memo.entry(o.key)
	for {
		v, version, next := s.look(q)
		a, err := e.at(version, func() (answer, error) { return evaluate(q, v) })
		if err != nil || o.index == 0 {
			return a, err
		}
		if q.differs && a.index != o.index {
			return a, nil
		}
		if !q.differs && (a.index > o.index || o.index > max(version, 1)) {
			return a, nil
		}
		if next(ctx) != nil {
			return a, nil
		}
	}
}

// look takes a view, with the number that grows when the answer may change and
// a function that waits for the next view.
func (s *Server) look(q query) (v view, version uint64, next func(context.Context) error) {
	if q.tables != nil {
		v.snap = s.cfg.Store.Snapshot()
		for _, name := range q.tables {
			version = max(version, v.snap.TableIndex(name))
		}
		return v, version, func(ctx context.Context) error { return v.snap.Wait(ctx, q.tables...) }
	}
	var changed <-chan struct{}
	v.table, changed = s.cfg.Catalog.View()
	version = v.table.Index
	if q.version != nil {
		version = q.version(v.table)
	}
	return v, version, func(ctx context.Context) error {
		select {
		case <-changed:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func evaluate(q query, v view) (answer, error) {
	value, index, found, err := q.run(v)
	if err != nil {
		return answer{}, err
	}
	a := answer{index: index, found: found, body: []byte{}}
	if !found {
		return a, nil
	}
	if q.text {
		a.body = value.([]byte)
		return a, nil
	}
	a.body, err = encode(value)
	return a, err
}

// encode is JSON without HTML escapes, as Consul writes it.
func encode(value any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(value); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

func (s *Server) lastContact() (time.Duration, bool) {
	if s.cfg.LastContact == nil {
		return 0, false
	}
	return s.cfg.LastContact()
}

func (s *Server) metaHeaders(w http.ResponseWriter, index uint64, mode string) {
	h := w.Header()
	h.Set("X-Consul-Index", strconv.FormatUint(max(index, 1), 10))
	h.Set("X-Consul-KnownLeader", strconv.FormatBool(s.leader() != ""))
	since, _ := s.lastContact()
	h.Set("X-Consul-LastContact", strconv.FormatInt(since.Milliseconds(), 10))
	h.Set("X-Consul-Effective-Consistency", mode)
	h.Set("X-Consul-Query-Backend", "blocking-query")
	h.Set("X-Consul-Default-ACL-Policy", "allow")
}

// respond writes a value that does not come from a blocking read.
func (s *Server) respond(w http.ResponseWriter, r *http.Request, value any) error {
	body, err := encode(value)
	if err != nil {
		return err
	}
	s.writeJSON(w, r, body, r.URL.Query().Has("pretty"))
	return nil
}

func (s *Server) writeJSON(w http.ResponseWriter, r *http.Request, body []byte, pretty bool) {
	if pretty {
		var b bytes.Buffer
		if json.Indent(&b, body, "", "    ") == nil {
			body = append(b.Bytes(), '\n')
		}
	}
	w.Header().Set("Content-Type", "application/json")
	s.write(w, r, http.StatusOK, body)
}

func (s *Server) write(w http.ResponseWriter, r *http.Request, code int, body []byte) {
	w.Header().Add("Vary", "Accept-Encoding")
	if len(body) >= minGzip && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		body = compress(body)
		w.Header().Set("Content-Encoding", "gzip")
	}
	w.WriteHeader(code)
	w.Write(body)
}
