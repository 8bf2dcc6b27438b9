package marathon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"appliance/raft/state"
)

const (
	// maxStreams bounds open event streams of one node: each compares views
	// of the state by itself.
	maxStreams = 100
	// keepAlive is how often an idle stream says that it lives.
	keepAlive = 15 * time.Second
	// streamWrite bounds one write to a client that does not read.
	streamWrite = 10 * time.Second
)

// events serves GET /v2/events, server-sent events derived from the state.
// Nothing is lost between two looks except steps in between: a task that
// starts and fails at once is one event, its last state.
func (c *call) events() error {
	if !strings.Contains(c.r.Header.Get("Accept"), "text/event-stream") {
		return errMethod
	}
	if c.streams.Add(1) > maxStreams {
		c.streams.Add(-1)
		return &failure{status: http.StatusServiceUnavailable, Message: fmt.Sprintf("%d event streams are open, which is the limit", maxStreams)}
	}
	defer c.streams.Add(-1)
	c.w.Header().Set("Content-Type", "text/event-stream")
	c.w.Header().Set("Cache-Control", "no-cache")
	c.w.WriteHeader(http.StatusOK)
	s := &stream{w: c.w, rc: http.NewResponseController(c.w), types: c.r.URL.Query()["event_type"]}
	d := newDiffer(c)
	first := event{"event_stream_attached", map[string]any{"remoteAddress": c.r.RemoteAddr}}
	for list := []event{first}; ; {
		if err := s.send(list); err != nil {
			return nil // the client is gone
		}
		var err error
		if list, err = c.nextEvents(d); err != nil {
			return nil
		}
	}
}

// nextEvents waits for changes and says which; none after keepAlive.
func (c *call) nextEvents(d *differ) ([]event, error) {
	ctx, cancel := context.WithTimeout(c.r.Context(), keepAlive)
	defer cancel()
	err := c.snap.Wait(ctx, state.Apps.Name, state.Tasks.Name, state.Deployments.Name)
	if errors.Is(err, context.DeadlineExceeded) && c.r.Context().Err() == nil {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	c.snap, c.now = c.Store.Snapshot(), time.Now().UTC()
	return d.diff(c), nil
}

type event struct {
	kind   string
	fields map[string]any
}

// stream writes events as Marathon does, one write for one event.
type stream struct {
	w     http.ResponseWriter
	rc    *http.ResponseController
	types []string // wanted; empty is all
}

func (s *stream) send(list []event) error {
	_ = s.rc.SetWriteDeadline(time.Now().Add(streamWrite)) // not every writer can
	if len(list) == 0 {
		if _, err := s.w.Write([]byte(":\r\n\r\n")); err != nil {
			return err
		}
	}
	for _, e := range list {
		if len(s.types) > 0 && !slices.Contains(s.types, e.kind) {
			continue
		}
		e.fields["eventType"] = e.kind
		if e.fields["timestamp"] == nil {
			e.fields["timestamp"] = stamp(time.Now())
		}
		data, err := json.Marshal(e.fields)
		if err != nil {
			return err
		}
		var b bytes.Buffer
		fmt.Fprintf(&b, "event: %s\r\ndata: %s\r\n\r\n", e.kind, data)
		if _, err := s.w.Write(b.Bytes()); err != nil {
			return err
		}
	}
	return s.rc.Flush()
}
