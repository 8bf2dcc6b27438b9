// Package idle ends HTTP transfers that make no progress at all, and lets slow
// ones go on: a deadline for the whole of a large blob would be wrong either
// way.
package idle

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"
)

// Timeout is how long a transfer may stand still: longer than any pause of a
// healthy network, shorter than a person waits.
const Timeout = 30 * time.Second

// syncTimeout: after the last byte of an upload the other side syncs its disk,
// which may have gigabytes waiting.
const syncTimeout = 2 * time.Minute

// ErrStalled: the other side neither sends nor takes bytes.
var ErrStalled = errors.New("transfer stalled")

type body struct {
	io.Reader
	control *http.ResponseController
}

// Body returns the request's body with reads that time out.
func Body(w http.ResponseWriter, r *http.Request) io.Reader {
	return body{r.Body, http.NewResponseController(w)}
}

func (b body) Read(p []byte) (int, error) {
	b.control.SetReadDeadline(time.Now().Add(Timeout)) // not supported by recorders, which do not stall
	n, err := b.Reader.Read(p)
	if err != nil {
		b.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

// Writer is a response whose writes time out.
type Writer struct {
	http.ResponseWriter
	control *http.ResponseController
}

// NewWriter returns w with writes that time out.
func NewWriter(w http.ResponseWriter) Writer {
	return Writer{w, http.NewResponseController(w)}
}

func (w Writer) extend() { w.control.SetWriteDeadline(time.Now().Add(Timeout)) }

// Write implements io.Writer.
func (w Writer) Write(p []byte) (int, error) {
	w.extend()
	return w.ResponseWriter.Write(p)
}

// ReadFrom keeps sendfile: io.CopyN on the response reaches the connection's
// own ReadFrom, a few MiB at a time, each with its own deadline.
func (w Writer) ReadFrom(r io.Reader) (total int64, err error) {
	const piece = 4 << 20
	// ServeContent passes an io.LimitedReader; the kernel is used only if one
	// such limit wraps the file itself.
	limited, ok := r.(*io.LimitedReader)
	if !ok {
		limited = &io.LimitedReader{R: r, N: 1<<63 - 1}
	}
	for limited.N > 0 {
		w.extend()
		n, err := io.CopyN(w.ResponseWriter, limited.R, min(piece, limited.N))
		total += n
		limited.N -= n
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// Watch returns a context that ends with ErrStalled when reads through the
// returned wrapper stand still, for transfers by an http.Client. Call stop
// when done.
func Watch(parent context.Context) (ctx context.Context, wrap func(io.Reader) io.Reader, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	timer := time.AfterFunc(Timeout, func() { cancel(ErrStalled) })
	wrap = func(r io.Reader) io.Reader { return watched{r, timer} }
	return ctx, wrap, func() { timer.Stop(); cancel(context.Canceled) }
}

type watched struct {
	io.Reader
	timer *time.Timer
}

func (w watched) Read(p []byte) (int, error) {
	w.timer.Reset(Timeout)
	n, err := w.Reader.Read(p)
	if err == io.EOF {
		w.timer.Reset(syncTimeout)
	} else {
		w.timer.Reset(Timeout)
	}
	return n, err
}
