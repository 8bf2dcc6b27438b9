package agent

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"appliance/node/model"
)

// Defaults of a check, where Marathon's (10 s interval, 20 s timeout) are too
// slow to notice a dead instance while its users do.
const (
	checkInterval = 2 * time.Second
	checkTimeout  = 2 * time.Second
	checkFailures = 3
	checkGrace    = 60 * time.Second
	// eager is the interval until the first success: it bounds how long a
	// ready instance waits for its first request.
	eager = 50 * time.Millisecond
)

// prober runs the checks of one task and tells the health when it changes.
// An instance is healthy when all its checks passed last time, and unhealthy
// when one has failed Failures times in a row.
type prober struct {
	addr   string // host part of http and tcp checks
	task   model.Task
	checks []model.Check
	exec   func(ctx context.Context, args []string) (int, error)
	set    func(healthy bool, why string)
	giveUp func(why string) // the task is beyond hope
	// replaceable reports whether ending the task would help. nil: it always
	// does.
	replaceable func() bool
}

// killFactor: after Failures*killFactor failures in a row the task is ended,
// so that a hung instance is replaced; until then it only gets no traffic.
const killFactor = 5

func (p *prober) run(ctx context.Context) {
	healthy := make([]bool, len(p.checks))
	type result struct {
		i   int
		ok  bool
		why string
	}
	results := make(chan result)
	var loops sync.WaitGroup
	defer loops.Wait()
	for i, c := range p.checks {
		loops.Add(1)
		go func() {
			defer loops.Done()
			p.loop(ctx, c, func(ok bool, why string) {
				select {
				case results <- result{i, ok, why}:
				case <-ctx.Done():
				}
			})
		}()
	}
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-results:
			healthy[r.i] = r.ok
			all := true
			for _, ok := range healthy {
				all = all && ok
			}
			if all || !r.ok {
				p.set(all, r.why)
			}
		}
	}
}

func (p *prober) loop(ctx context.Context, c model.Check, tell func(ok bool, why string)) {
	began, failures, known, ok := time.Now(), 0, false, false
	limit := or(c.Failures, checkFailures)
	for ctx.Err() == nil {
		err := p.once(ctx, c)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			failures = 0
			if !known || !ok {
				known, ok = true, true
				tell(true, "")
			}
		case !known && time.Since(began) < or(c.Grace.D(), checkGrace):
			sleep(ctx, eager)
			continue
		default:
			failures++
			if failures >= limit && (!known || ok) {
				known, ok = true, false
				tell(false, err.Error())
			}
			if failures >= limit && p.replaceable != nil && !p.replaceable() {
				failures = limit // counted again when somebody can help
			}
			if failures >= limit*killFactor {
				p.giveUp(fmt.Sprintf("health check failed %d times in a row: %v", failures, err))
				return
			}
		}
		sleep(ctx, or(c.Interval.D(), checkInterval))
	}
}

func or[T comparable](v, fallback T) T {
	var zero T
	if v == zero {
		return fallback
	}
	return v
}

func (p *prober) once(ctx context.Context, c model.Check) error {
	ctx, cancel := context.WithTimeout(ctx, or(c.Timeout.D(), checkTimeout))
	defer cancel()
	switch c.Type {
	case "command":
		code, err := p.exec(ctx, c.Command)
		if err == nil && code != 0 {
			err = fmt.Errorf("command ended with %d", code)
		}
		return err
	case "tcp":
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.target(c))
		if err == nil {
			conn.Close()
		}
		return err
	default:
		return p.http(ctx, c)
	}
}

func (p *prober) target(c model.Check) string {
	port := 0
	if c.Port < len(p.task.Ports) {
		port = p.task.Ports[c.Port]
	}
	return net.JoinHostPort(p.addr, strconv.Itoa(port))
}

// client does not follow redirects (a 3xx is an answer) nor keep connections.
var client = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}, // a check asks "does it answer", on the node itself
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// maxCheckBody is how much of an answer is read before the connection closes.
const maxCheckBody = 4 << 10

func (p *prober) http(ctx context.Context, c model.Check) error {
	scheme := or(c.Type, "http")
	path := or(c.Path, "/")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+p.target(c)+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "appliance-check")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, maxCheckBody)
	if resp.StatusCode < 200 || resp.StatusCode >= 400 {
		return fmt.Errorf("%s answered %s", path, resp.Status)
	}
	return nil
}
