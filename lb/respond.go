package lb

import (
	"io"
	"net/http"
	"strings"
	"time"
)

// spliceFrom is the body size from which moving bytes inside the kernel beats
// copying them through a buffer.
const spliceFrom = 64 << 10

// respond passes the response on. It returns whether the upstream's side was
// read to its end, so that the connection can be used again.
func (x *exchange) respond(resp *http.Response, u *upstream) (whole bool) {
	x.head(resp)
	var rerr, werr error
	if u != nil && x.spliceable(resp) {
		rerr, werr = x.splice(resp.ContentLength, u)
	} else {
		rerr, werr = x.copy(resp)
	}
	switch {
	case werr != nil || x.r.Context().Err() != nil:
		x.out.canceled = true
		return false
	case rerr != nil:
		x.out.failed = true
		// The head is out: only an abrupt end tells the client the truth.
		panic(http.ErrAbortHandler)
	}
	h := x.w.Header()
	for k, v := range resp.Trailer {
		h[http.TrailerPrefix+k] = v
	}
	return true
}

func (x *exchange) head(resp *http.Response) {
	x.out.headAfter = time.Since(x.start)
	x.out.status, x.wrote = resp.StatusCode, true
	stripHops(resp.Header)
	h := x.w.Header()
	for k, v := range resp.Header {
		h[k] = v
	}
	if h["Content-Type"] == nil {
		h["Content-Type"] = nil // no guessing on the app's behalf
	}
	if h[requestID] == nil {
		h[requestID] = x.header[requestID]
	}
	if x.route.Options.ShowBackend {
		h["X-Appliance-Backend"] = []string{x.target.id}
	}
	for k := range resp.Trailer {
		h.Add("Trailer", k)
	}
	x.w.WriteHeader(resp.StatusCode)
}

// copy moves the body through a buffer; one of unknown length may be live
// (events, gRPC), so each piece is flushed.
func (x *exchange) copy(resp *http.Response) (rerr, werr error) {
	if resp.Body == http.NoBody {
		return nil, nil
	}
	live := resp.ContentLength < 0 || strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream")
	flusher, _ := x.w.(http.Flusher)
	live = live && flusher != nil
	if live {
		flusher.Flush()
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		n, err := resp.Body.Read(*buf)
		if n > 0 {
			m, werr := x.w.Write((*buf)[:n])
			x.out.bytes += int64(m)
			if werr != nil {
				return nil, werr
			}
			if live {
				flusher.Flush()
			}
		}
		if err == io.EOF {
			return nil, nil
		}
		if err != nil {
			return err, nil
		}
	}
}

func (x *exchange) spliceable(resp *http.Response) bool {
	_, ok := x.w.(io.ReaderFrom)
	return ok && resp.ContentLength >= spliceFrom && len(resp.TransferEncoding) == 0 && x.r.ProtoMajor == 1 &&
		x.r.TLS == nil && x.r.Method != http.MethodHead && resp.Body != http.NoBody
}

// splice sends what is buffered and lets the kernel move the rest: net/http's
// response hands the limited TCP connection to its own ReadFrom.
func (x *exchange) splice(length int64, u *upstream) (rerr, werr error) {
	rf := x.w.(io.ReaderFrom) // spliceable checked
	have := min(int64(u.br.Buffered()), length)
	head, _ := u.br.Peek(int(have)) // all of it is buffered
	n, werr := x.w.Write(head)
	x.out.bytes += int64(n)
	if werr != nil {
		return nil, werr
	}
	_, _ = u.br.Discard(int(have))
	moved, err := rf.ReadFrom(&io.LimitedReader{R: u.Conn, N: length - have})
	x.out.bytes += moved
	switch {
	case moved == length-have:
		return nil, nil
	case err == nil: // the backend closed early
		return io.ErrUnexpectedEOF, nil
	default: // a failed read and a failed write look the same here
		return nil, err
	}
}
