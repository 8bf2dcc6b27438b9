package lb

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"strconv"
	"time"
)

// errSlow says that the wait for a response head ran out.
var errSlow = errors.New("no answer within the response timeout")

// maxInterim bounds the 1xx responses before the real one.
const maxInterim = 8

// roundTrip sends the request on u and, unless that fails, gives the client the
// response. It owns u and leaves it pooled or closed.
func (x *exchange) roundTrip(t *target, u *upstream) *failure {
	ctx := x.r.Context()
	if !x.body.stream {
		_ = u.SetReadDeadline(time.Now().Add(x.route.Options.ResponseTimeout)) // fails only on a closed one
	}
	stop := context.AfterFunc(ctx, func() { _ = u.SetDeadline(time.Unix(1, 0)) })
	keep := false
	defer func() {
		if stop() && keep && u.br.Buffered() == 0 {
			t.put(u)
		} else {
			u.Close()
		}
	}()
	x.writeHead(u.bw)
	var s *sender
	if _, err := u.bw.Write(x.body.data); err != nil {
		return &failure{err: err, sent: true}
	}
	if err := u.bw.Flush(); err != nil {
		return &failure{err: err, sent: true}
	}
	if x.body.stream {
		s = x.send(u)
		defer s.stop()
	}
	resp, err := x.readHead(u, s)
	if err != nil {
		if s != nil && !s.stop() && !errors.Is(s.err, errStopped) && isClientFault(s.err) {
			err = s.err
		}
		return &failure{err: err, sent: true}
	}
	// resp.Body is never closed: closing would read it to its end, and it holds
	// nothing but u.
	_ = u.SetReadDeadline(time.Time{})
	if ctx.Err() != nil {
		return &failure{err: ctx.Err(), sent: true}
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		stop()
		x.switchProtocols(u, resp)
		return nil
	}
	whole := x.respond(resp, u)
	sent := s == nil || s.stop()
	keep = whole && sent && !resp.Close
	return nil
}

func isClientFault(err error) bool {
	var tooLarge *http.MaxBytesError
	return errors.Is(err, errClientBody) || errors.As(err, &tooLarge)
}

func (x *exchange) writeHead(w *bufio.Writer) {
	// Errors stick to the writer and show in Flush.
	put := func(parts ...string) {
		for _, s := range parts {
			_, _ = w.WriteString(s)
		}
	}
	put(x.r.Method, " ", x.uri(), " HTTP/1.1\r\nHost: ", x.r.Host, "\r\n")
	for k, vs := range x.header {
		for _, v := range vs {
			put(k, ": ", v, "\r\n")
		}
	}
	switch b := &x.body; {
	case b.length > 0:
		put("Content-Length: ", strconv.FormatInt(b.length, 10), "\r\n")
	case b.length < 0:
		put("Transfer-Encoding: chunked\r\n")
		for k := range x.r.Trailer {
			put("Trailer: ", k, "\r\n")
		}
	case x.r.Method == http.MethodPost || x.r.Method == http.MethodPut || x.r.Method == http.MethodPatch:
		put("Content-Length: 0\r\n")
	}
	if x.body.expect {
		put("Expect: 100-continue\r\n")
	}
	put("\r\n")
}

// readHead reads up to the final response head, passing interim ones on.
func (x *exchange) readHead(u *upstream, s *sender) (*http.Response, error) {
	u.left = maxHead
	defer func() { u.left = math.MaxInt64 }()
	for range maxInterim {
		resp, err := http.ReadResponse(u.br, x.r)
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) { // not ETIMEDOUT, which tells of a dead node
				err = fmt.Errorf("%w: %w", errSlow, err)
			}
			return nil, err
		}
		switch code := resp.StatusCode; {
		case code == http.StatusSwitchingProtocols && x.upgrade() == "":
			return nil, errors.New("backend switched protocols unasked")
		case code >= 200 || code == http.StatusSwitchingProtocols:
			if s != nil {
				select {
				case s.proceed <- false: // too late if the body is under way
				default:
				}
			}
			return resp, nil
		case code == http.StatusContinue:
			if s != nil {
				select {
				case s.proceed <- true:
				default:
				}
			}
		default: // early hints and the like
			h := x.w.Header()
			for k, v := range resp.Header {
				h[k] = v
			}
			x.w.WriteHeader(code)
			clear(h)
		}
	}
	return nil, errors.New("backend sent interim responses without end")
}
