package lb

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// replayLimit is the largest request body kept in memory so that it can be
	// sent again.
	replayLimit = 64 << 10
	// stallLimit is how long a client may pause within a request body.
	stallLimit = 30 * time.Second
	// continueWait is how long a client's Expect: 100-continue waits for the
	// backend's word before the body is sent anyway (RFC 9110 section 10.1.1).
	continueWait = time.Second
	copyBuffer   = 32 << 10
)

var (
	errClientBody = errors.New("the client broke off its request body")
	errStopped    = errors.New("body no longer wanted")
)

var buffers = sync.Pool{New: func() any { b := make([]byte, copyBuffer); return &b }}

// body is the client's request body: none, a small one in memory, or a stream.
type body struct {
	data   []byte
	length int64 // -1 is unknown
	stream bool
	expect bool
	read   atomic.Bool
	rc     *http.ResponseController
}

// prepare decides how the body travels. It returns false when it has answered
// the client itself.
func (b *body) prepare(x *exchange) bool {
	r := x.r
	b.length = r.ContentLength
	if r.Body == nil || r.Body == http.NoBody || b.length == 0 {
		b.length = 0
		return true
	}
	if limit := x.route.Options.MaxBodyBytes; limit > 0 {
		if b.length > limit {
			x.page(http.StatusRequestEntityTooLarge, "Request too large", fmt.Sprintf("This route takes bodies of up to %d bytes.", limit))
			return false
		}
		r.Body = http.MaxBytesReader(x.w, r.Body, limit)
	}
	b.rc = http.NewResponseController(x.w)
	b.expect = r.Header.Get("Expect") != ""
	if b.expect || b.length < 0 || b.length > replayLimit || x.route.Options.H2C {
		b.stream = true
		return true
	}
	b.data = make([]byte, b.length)
	_ = b.rc.SetReadDeadline(time.Now().Add(stallLimit)) // unsupported only in tests with recorders
	if _, err := io.ReadFull(r.Body, b.data); err != nil {
		x.unfinished()
		return false
	}
	_ = b.rc.SetReadDeadline(time.Time{})
	return true
}

// started reports whether the stream has been tapped, after which it cannot be
// sent to another backend.
func (b *body) started() bool { return b.read.Load() }

// sender streams a body to an upstream in a goroutine of its own.
type sender struct {
	x       *exchange
	u       *upstream
	proceed chan bool // answer to Expect
	done    chan struct{}
	ended   atomic.Bool // the client's side is read to its end
	err     error       // after done
}

func (x *exchange) send(u *upstream) *sender {
	s := &sender{x: x, u: u, proceed: make(chan bool, 1), done: make(chan struct{})}
	// Without this, the HTTP/1 server reads the rest of the body before it writes
	// a head, and two readers would fight.
	if x.r.ProtoMajor == 1 {
		_ = x.body.rc.EnableFullDuplex()
	}
	go func() {
		defer close(s.done)
		s.err = s.run()
	}()
	return s
}

func (s *sender) run() error {
	if s.x.body.expect {
		wait := time.NewTimer(continueWait)
		defer wait.Stop()
		select {
		case ok := <-s.proceed:
			if !ok {
				return errStopped
			}
		case <-wait.C:
		}
	}
	s.x.body.read.Store(true)
	var w io.Writer = s.u.bw
	var chunks io.WriteCloser
	if s.x.body.length < 0 {
		chunks = httputil.NewChunkedWriter(s.u.bw)
		w = chunks
	}
	if err := s.copy(w); err != nil {
		s.u.Close() // the backend must not take half a body for a whole one
		return err
	}
	if chunks != nil {
		_ = chunks.Close() // errors show in Flush
		_ = s.x.r.Trailer.Write(s.u.bw)
		_, _ = s.u.bw.WriteString("\r\n")
	}
	if err := s.u.bw.Flush(); err != nil {
		return err
	}
	return s.u.SetReadDeadline(time.Now().Add(s.x.route.Options.ResponseTimeout))
}

func (s *sender) copy(w io.Writer) error {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	var total int64
	for {
		_ = s.x.body.rc.SetReadDeadline(time.Now().Add(stallLimit))
		n, err := s.x.r.Body.Read(*buf)
		if n > 0 {
			total += int64(n)
			if _, werr := w.Write((*buf)[:n]); werr != nil {
				return werr
			}
			if werr := s.u.bw.Flush(); werr != nil {
				return werr
			}
		}
		switch {
		case err == io.EOF && s.x.body.length >= 0 && total < s.x.body.length:
			return errClientBody
		case err == io.EOF:
			s.ended.Store(true)
			return s.x.body.rc.SetReadDeadline(time.Time{}) // the server now watches for the client leaving
		case err != nil:
			var tooLarge *http.MaxBytesError
			if errors.As(err, &tooLarge) {
				return err
			}
			return fmt.Errorf("%w: %w", errClientBody, err)
		}
	}
}

// uploadLinger is how long a client may take to notice an answer that came
// before the end of its upload.
const uploadLinger = 250 * time.Millisecond

// stop ends a sender that the response made superfluous, and reports whether
// the body had gone out whole.
func (s *sender) stop() bool {
	select {
	case <-s.done:
	default:
		select {
		case s.proceed <- false:
		default:
		}
		if !s.ended.Load() {
			// A client that still sends wakes the read by itself; one that has
			// stalled is not waited for long. Cut off in the middle of a read, the
			// connection could only be reset, and the client might lose the answer.
			_ = s.x.body.rc.SetReadDeadline(time.Now().Add(uploadLinger))
		}
		s.u.Close()
		<-s.done
		if !s.ended.Load() {
			// The server reads a little of the rest and then closes gently, so
			// that a client that still sends sees the answer and not a reset.
			// With the deadline in the past it could not.
			_ = s.x.body.rc.SetReadDeadline(time.Now().Add(uploadLinger))
		}
	}
	return s.err == nil
}
