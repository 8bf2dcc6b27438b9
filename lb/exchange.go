package lb

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"time"
)

const (
	// maxAttempts and retryWindow bound the work that one request may cause: a
	// few stale connections and dead backends can be stepped over, no more. The
	// window opens at the first failure, for that may come late: when the node
	// dies under a long request.
	maxAttempts = 8
	retryWindow = 3 * time.Second
	roundPause  = 50 * time.Millisecond // before asking the same backends again
)

// exchange is one client request on its way through the proxy. It belongs to
// the handler's goroutine, except where streamed bodies say otherwise.
type exchange struct {
	p     *Proxy
	w     http.ResponseWriter
	r     *http.Request
	start time.Time

	route  Route
	pool   *pool
	target *target // last one asked
	header http.Header
	body   body
	out    outcome
	wrote  bool // a response head went to the client
}

// outcome is what the counters and the access log want to know.
type outcome struct {
	status           int
	failed, canceled bool
	retries          int
	headAfter        time.Duration
	bytes            int64
}

// failure is an attempt that gave the client nothing.
type failure struct {
	err   error
	sent  bool // the backend may have seen the request
	stale bool // a pooled connection was found closed
}

func (x *exchange) serve() {
	if x.r.Context().Err() != nil {
		// Stopping a body that has just ended by itself (sender.stop) makes the
		// server take the connection for closed, in all its later requests. If it is
		// really closed, writing will tell.
		x.r = x.r.WithContext(context.WithoutCancel(x.r.Context()))
	}
	live := x.p.live.Load()
	if x.r.Method == http.MethodConnect {
		x.page(http.StatusMethodNotAllowed, "Method not allowed", "This is a reverse proxy: CONNECT has no target here.")
		return
	}
	var ok bool
	if x.route, ok = live.table.Match(x.r.Host, x.r.URL.Path); !ok {
		x.out.status, x.wrote = http.StatusNotFound, true
		unknownHost(x.w, x.r, live.table)
		return
	}
	if x.route.Options.RedirectTLS && x.r.TLS == nil {
		x.out.status, x.wrote = http.StatusPermanentRedirect, true
		http.Redirect(x.w, x.r, "https://"+cleanHost(x.r.Host)+x.r.URL.RequestURI(), http.StatusPermanentRedirect)
		return
	}
	if x.pool = live.pools[x.route.Service]; x.pool == nil {
		x.unavailable(Service{Name: x.route.Service, Cause: "the service does not exist"})
		return
	}
	if len(x.pool.schedule) == 0 {
		x.unavailable(x.pool.service)
		return
	}
	if !x.body.prepare(x) {
		return
	}
	x.header = x.p.outgoing(x.r)
	x.attempts()
}

// attempts asks backends until one answers or nothing more may be tried.
func (x *exchange) attempts() {
	var tried []*target
	var again *target // ask this one once more, on a new connection
	timeout := connectTimeout
	var failing time.Time
	for n := 0; ; n++ {
		t := again
		if t == nil {
			t = x.pool.pick(tried, time.Now(), random)
		}
		switch {
		case t == nil && len(tried) == 0:
			x.unavailable(x.pool.service)
			return
		case t == nil: // all were asked: another round
			tried = tried[:0]
			timeout *= 2
			if !x.pause(roundPause) {
				return
			}
			continue
		case !t.begin():
			again = nil
			x.refresh()
			continue
		}
		x.target = t
		f := x.attempt(t, again != nil, timeout)
		if f == nil {
			return
		}
		again = nil
		if f.stale {
			again = t
		} else {
			tried = append(tried, t)
		}
		if x.r.Context().Err() != nil {
			x.cancel()
			return
		}
		if failing.IsZero() {
			failing = time.Now()
		}
		if f.sent && !x.replayable() || x.body.started() || n+1 >= maxAttempts || time.Since(failing) > retryWindow {
			x.fail(f.err)
			return
		}
		x.out.retries++
		x.refresh()
	}
}

// refresh follows the live table between attempts.
func (x *exchange) refresh() {
	if pl := x.p.live.Load().pools[x.route.Service]; pl != nil {
		x.pool = pl
	}
}

func (x *exchange) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-x.r.Context().Done():
		x.cancel()
		return false
	}
}

// attempt asks one target. nil means that the client has its answer.
func (x *exchange) attempt(t *target, fresh bool, timeout time.Duration) *failure {
	defer t.end() // also when a response is aborted
	if x.route.Options.H2C && x.upgrade() == "" {
		return x.attemptH2(t)
	}
	ctx := x.r.Context()
	u, err := t.connect(ctx, !x.replayable(), fresh, timeout)
	if err != nil {
		if ctx.Err() == nil {
			x.fault(t, err)
		}
		return &failure{err: err}
	}
	f := x.roundTrip(t, u)
	if f == nil {
		if t.healthy() {
			x.p.log.Info("backend answers again", "service", t.service, "task", t.id, "addr", t.addr)
		}
		return nil
	}
	f.stale = u.reused && !isTimeout(f.err)
	if !f.stale && ctx.Err() == nil && !x.slow(f.err) {
		x.fault(t, f.err)
	}
	return f
}

// slow tells the wait for a response head that ran out, which says nothing
// about other requests.
func (x *exchange) slow(err error) bool { return errors.Is(err, errSlow) }

func (x *exchange) fault(t *target, err error) {
	if t.fault(time.Now()) {
		x.p.log.Warn("backend ejected", "service", t.service, "task", t.id, "addr", t.addr, "cause", err)
	}
}

// replayable reports whether sending the request twice does what sending it
// once does (RFC 9110 section 9.2.2), and can be done.
func (x *exchange) replayable() bool {
	switch x.r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return !x.body.stream
	}
	return false
}

func (x *exchange) upgrade() string {
	if x.r.ProtoMajor != 1 {
		return ""
	}
	return upgradeOf(x.r.Header)
}

// uri is the request target for the backend.
func (x *exchange) uri() string {
	u := *x.r.URL
	if x.route.Options.StripPrefix && x.route.PathPrefix != "" {
		raw := u.EscapedPath()
		u.Path = "/" + strings.TrimPrefix(strings.TrimPrefix(u.Path, x.route.PathPrefix), "/")
		u.RawPath = "/" + strings.TrimPrefix(strings.TrimPrefix(raw, x.route.PathPrefix), "/")
	}
	return u.RequestURI()
}

// finish counts the request and logs it.
func (x *exchange) finish() {
	x.counter().observe(&x.out, time.Now())
	if x.p.cfg.Access == nil {
		return
	}
	client, _, _ := net.SplitHostPort(x.r.RemoteAddr)
	a := Access{
		Time: x.start, Client: client, Method: x.r.Method, Host: x.r.Host, Path: x.r.URL.Path,
		Status: x.out.status, Bytes: x.out.bytes, Duration: time.Since(x.start),
		Service: x.route.Service, Retries: x.out.retries, RequestID: x.header.Get(requestID),
	}
	if x.target != nil {
		a.Backend = x.target.id
	}
	x.p.cfg.Access.add(a)
}

func (x *exchange) counter() *releaseCount {
	switch {
	case x.target != nil:
		return x.target.count
	case x.pool != nil:
		return x.pool.none
	default:
		return x.p.ledger.row("", "")
	}
}

func (x *exchange) page(status int, title string, lines ...string) {
	x.out.status, x.wrote = status, true
	page(x.w, x.r, status, title, lines...)
}

func (x *exchange) unavailable(s Service) {
	x.out.status, x.out.failed, x.wrote = http.StatusServiceUnavailable, true, true
	x.target = nil
	noBackend(x.w, x.r, s)
}

// cancel ends an exchange whose client left. Returning without a response
// would make net/http send an empty 200.
func (x *exchange) cancel() {
	x.out.canceled = true
	if !x.wrote {
		x.out.status = 0
		panic(http.ErrAbortHandler)
	}
}

// unfinished answers a client that stopped in the middle of its body.
func (x *exchange) unfinished() {
	x.out.canceled = true
	x.w.Header().Set("Connection", "close")
	x.page(http.StatusRequestTimeout, "Request unfinished", "The request body did not arrive whole.")
}

// fail answers 502 or 504.
func (x *exchange) fail(err error) {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		x.page(http.StatusRequestEntityTooLarge, "Request too large", "The limit of this route is exceeded.")
	case errors.Is(err, errClientBody):
		x.unfinished()
	case isTimeout(err):
		x.out.failed = true
		x.page(http.StatusGatewayTimeout, "The app did not answer in time",
			"Service "+x.route.Service+" was asked, and the time for an answer ran out.")
	default:
		x.out.failed = true
		x.page(http.StatusBadGateway, "The app broke off the connection",
			"Service "+x.route.Service+" was asked, but closed the connection before it answered, or could not be reached.")
	}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.Is(err, errSlow) || errors.Is(err, context.DeadlineExceeded) || errors.As(err, &ne) && ne.Timeout()
}
