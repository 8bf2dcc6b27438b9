package story

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// Load is a crowd of visitors that goes on until it is stopped. It counts
// every request and keeps the first error; it never retries.
type Load struct {
	cancel context.CancelFunc
	ended  sync.WaitGroup
	host   string
	writer *visitor

	mu       sync.Mutex
	report   Report
	lastGood time.Time
	notes    map[string]string // path -> name of the acknowledged ones
}

// Report is what a load generator has seen.
type Report struct {
	Requests   int           `json:"requests"`
	Writes     int           `json:"writes"` // of the requests: notes made
	Failed     int           `json:"failed"`
	FirstError string        `json:"first_error,omitempty"`
	LongestGap time.Duration `json:"longest_gap_ns"` // between two good answers of any kind
	Slowest    time.Duration `json:"slowest_ns"`
}

// kind is what one visitor of the crowd does.
type kind struct {
	name      string
	keepAlive bool
	session   bool
	writes    bool
	pause     time.Duration // between two requests
}

// crowd are the kinds of requests that the promises are about, each with and
// without keep-alive. The pauses leave most of a small machine to the lab:
// the load is there to notice, not to saturate.
var crowd = []kind{
	{"page", true, false, false, 5 * time.Millisecond},
	{"page, new connection each", false, false, false, 10 * time.Millisecond},
	{"page of a session", true, true, false, 10 * time.Millisecond},
	{"page of a session, new connection each", false, true, false, 20 * time.Millisecond},
	{"new note", true, true, true, 40 * time.Millisecond},
	{"new note, new connection each", false, true, true, 60 * time.Millisecond},
}

// StartLoad lets the crowd visit host at addr. It returns when everybody is
// logged in.
func (s *Story) StartLoad(ctx context.Context, addr, host string) (*Load, error) {
	reader, writer := newVisitor(addr, host, true), newVisitor(addr, host, true)
	for _, v := range []*visitor{reader, writer} {
		if _, err := v.signUp(ctx, fmt.Sprintf("load-%d@example.org", time.Now().UnixNano())); err != nil {
			return nil, fmt.Errorf("load generator: %w", err)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	l := &Load{cancel: cancel, host: host, writer: writer, notes: map[string]string{}, lastGood: time.Now()}
	for _, k := range crowd {
		v := newVisitor(addr, host, k.keepAlive)
		switch {
		case k.writes:
			v.http.Jar, v.token, v.email = writer.http.Jar, writer.token, writer.email
		case k.session:
			v.http.Jar, v.email = reader.http.Jar, reader.email
		}
		l.ended.Go(func() { l.visit(ctx, k, v) })
	}
	return l, nil
}

func (l *Load) visit(ctx context.Context, k kind, v *visitor) {
	defer v.close()
	for n := 0; ctx.Err() == nil; n++ {
		began := time.Now()
		note := fmt.Sprintf("%s %d", strings.ReplaceAll(k.name, ",", ""), n)
		path, err := l.once(context.WithoutCancel(ctx), k, v, note) // what has begun is counted
		l.count(k, path, note, began, err)
		select {
		case <-ctx.Done():
		case <-time.After(k.pause):
		}
	}
}

// once makes one request. It returns the path of a note that was made.
func (l *Load) once(ctx context.Context, k kind, v *visitor, note string) (string, error) {
	if k.writes {
		p, err := v.write(ctx, note, "written under load")
		return p.location, err
	}
	p, err := v.get(ctx, "/")
	switch {
	case err != nil:
		return "", err
	case "app-"+p.env != l.host:
		return "", fmt.Errorf("the page of %s names environment %q", l.host, p.env)
	case k.session && !strings.Contains(p.body, v.email):
		return "", errors.New("the session is lost")
	}
	return "", nil
}

func (l *Load) count(k kind, path, note string, began time.Time, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	r := &l.report
	r.Requests++
	if k.writes {
		r.Writes++
	}
	r.Slowest = max(r.Slowest, now.Sub(began))
	if err != nil {
		if r.Failed++; r.FirstError == "" {
			r.FirstError = fmt.Sprintf("%s, after %s: %v", k.name, short(now.Sub(began)), err)
		}
		return
	}
	r.LongestGap = max(r.LongestGap, now.Sub(l.lastGood))
	l.lastGood = now
	if path != "" {
		l.notes[path] = note
	}
}

// Now is the report so far.
func (l *Load) Now() Report {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.report
	r.LongestGap = max(r.LongestGap, time.Since(l.lastGood))
	return r
}

// Stop ends the crowd and returns the report.
func (l *Load) Stop() Report {
	r := l.Now()
	l.cancel()
	l.ended.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	gap := r.LongestGap
	r = l.report
	r.LongestGap = max(gap, r.LongestGap)
	return r
}

// Verify looks whether every note that was acknowledged is there. Call it
// after Stop.
func (l *Load) Verify(ctx context.Context) error {
	for path, note := range l.notes { // the list shows only so many
		p, err := l.writer.get(ctx, path)
		if err != nil {
			return fmt.Errorf("the acknowledged note %q: %w", note, err)
		}
		if !strings.Contains(p.body, note) {
			return fmt.Errorf("an acknowledged write is lost: %s does not show the note %q", path, note)
		}
	}
	return nil
}

// finish stops the load and complains about any failed request.
func (s *Story) finish(ctx context.Context, l *Load) (Report, error) {
	r := l.Stop()
	s.out.line("   load: %d requests (%d of them notes made), %d failed, slowest %s, longest gap %s",
		r.Requests, r.Writes, r.Failed, short(r.Slowest), short(r.LongestGap))
	if r.Failed > 0 {
		return r, fmt.Errorf("%d of %d requests failed; the first: %s", r.Failed, r.Requests, r.FirstError)
	}
	if r.Requests < minRequests {
		return r, fmt.Errorf("only %d requests were made: too few to say anything", r.Requests)
	}
	return r, l.Verify(ctx)
}

// minRequests is the least traffic that proves something.
const minRequests = 50
