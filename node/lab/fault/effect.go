package fault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"time"
)

const (
	// askEvery and askTime are for the service's word on its clock and address.
	askEvery = 500 * time.Millisecond
	askTime  = 2 * time.Second
	// maxWord bounds that word: a status.
	maxWord = 16 << 20
	// leastOffset is the least error of a clock that can be seen in a Date, which
	// has whole seconds.
	leastOffset = 2 * time.Second
)

// prove asks the service until its own word shows the fault, and notes that in
// the record, so that whoever ends the fault knows.
func (m Machine) prove(ctx context.Context, f Fault) {
	if f.Kind != Clock && f.Kind != Address {
		return
	}
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if m.shows(ctx, f) && m.seen(f) == nil {
			return
		}
	}
}

// seen notes that the service has shown the fault. One that is over stays so.
func (m Machine) seen(f Fault) error {
	unlock, err := lock(m.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	path := filepath.Join(m.Dir, f.ID+recordEnd)
	if err := read(path, &f); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	f.Seen = true
	return write(path, f)
}

// shows says whether the service's own word shows the fault now. A service
// that does not answer shows nothing.
func (m Machine) shows(ctx context.Context, f Fault) bool {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	began := time.Now()
	w, err := m.ask(ctx)
	if err != nil {
		return false
	}
	if f.Kind == Clock {
		return skewed(w.date, began, time.Now(), f.Offset)
	}
	for _, n := range w.Nodes {
		if n.Name == w.Node {
			return n.Addr == f.Move.To.Addr().String()
		}
	}
	return false
}

// skewed says whether a Date that was made between two moments is nearer to
// the wrong time than to the right one.
func skewed(date, from, to time.Time, offset time.Duration) bool {
	off := date.Add(time.Second / 2).Sub(from.Add(to.Sub(from) / 2))
	return offset.Abs() >= leastOffset && (off-offset).Abs() < off.Abs()
}

// word is what the service says of itself (GET /status).
type word struct {
	date  time.Time
	Node  string // name of the one that answers
	Nodes []struct {
		Name, Addr string // address as it stands in the state
	}
}

func (m Machine) ask(ctx context.Context) (w word, err error) {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", m.API)
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://appliance/appliance/v1/status?stale", nil)
	if err != nil {
		return w, err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return w, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return w, fmt.Errorf("the service answers %s", resp.Status)
	}
	if w.date, err = http.ParseTime(resp.Header.Get("Date")); err != nil {
		return w, err
	}
	return w, json.NewDecoder(io.LimitReader(resp.Body, maxWord)).Decode(&w)
}
