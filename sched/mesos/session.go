package mesos

import (
	"context"
	"errors"
	"net/http"
	"time"

	"appliance/node/model"
	"appliance/sched/mesos/wire"
)

const (
	// maxQueued bounds the events that a slow scheduler has not taken yet;
	// then its stream is closed and it subscribes again.
	maxQueued = 1024
	// streamWrite bounds one write to a scheduler that does not read.
	streamWrite = 10 * time.Second
)

// session is what the leader keeps in memory for one framework. It is guarded
// by Server.mu.
type session struct {
	framework *model.Framework
	stream    *stream
	offers    map[string]*offer
	filters   map[string]time.Time // node -> no offers until
	// suppressed frameworks get no offers.
	suppressed bool
	updates    map[string]*updates // by task
}

// stream is one subscription. Events go in under Server.mu and are written by
// the goroutine of the request.
type stream struct {
	id     string // Mesos-Stream-Id
	codec  codec
	events chan []byte
	closed chan struct{}
}

// send queues an event; a full queue closes the stream.
func (st *stream) send(e *wire.Event) {
	select {
	case st.events <- st.codec.marshal(e):
	default:
		st.close()
	}
}

func (st *stream) close() {
	select {
	case <-st.closed:
	default:
		close(st.closed)
	}
}

// has reports whether the framework can do something.
func (ss *session) has(c wire.Capability) bool {
	name := wire.Name(c)
	for _, have := range ss.framework.Capabilities {
		if have == name {
			return true
		}
	}
	return false
}

func (ss *session) send(e *wire.Event) {
	if ss.stream != nil {
		ss.stream.send(e)
	}
}

// serve writes the stream until either side ends it. What was queued before a
// close is still written.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, st *stream) error {
	h := w.Header()
	h.Set("Content-Type", st.codec.name)
	h.Set("Mesos-Stream-Id", st.id)
	w.WriteHeader(http.StatusOK)
	rc := http.NewResponseController(w)
	write := func(record []byte) error {
		_ = rc.SetWriteDeadline(time.Now().Add(streamWrite)) // not every writer can
		if err := wire.WriteRecord(w, record); err != nil {
			return err
		}
		return rc.Flush()
	}
	tick := time.NewTicker(s.heartbeat())
	defer tick.Stop()
	beat := st.codec.marshal(&wire.Event{Type: wire.EventHeartbeat})
	for {
		var record []byte
		select {
		case record = <-st.events:
		case <-tick.C:
			record = beat
		case <-r.Context().Done():
			return r.Context().Err()
		case <-st.closed:
			for {
				select {
				case rest := <-st.events:
					if err := write(rest); err != nil {
						return err
					}
				default:
					return errClosed
				}
			}
		}
		if err := write(record); err != nil {
			return err
		}
	}
}

var errClosed = errors.New("the stream was closed")

// detach forgets a stream that has ended, and notes that its framework is
// disconnected unless it has another one already.
func (s *Server) detach(id string, st *stream) {
	s.mu.Lock()
	ss := s.sessions[id]
	if ss == nil || ss.stream != st {
		s.mu.Unlock()
		return
	}
	ss.stream = nil
	ss.offers = map[string]*offer{}
	ss.updates = map[string]*updates{}
	leading := s.leading
	s.mu.Unlock()
	s.wake()
	if !leading {
		return // the new leader sees that there is no stream
	}
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	if err := s.disconnected(ctx, id); err != nil {
		s.Log.Warn("could not note that a framework is disconnected", "framework", id, "err", err)
	}
}
