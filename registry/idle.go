package registry

import (
	"io"
	"net/http"
	"strconv"
	"time"
)

// idleTimeout ends a transfer that makes no progress at all; slow ones go on.
const idleTimeout = time.Minute

// idleBody is a request body whose reads time out.
type idleBody struct {
	io.Reader
	control *http.ResponseController
}

func newIdleBody(w http.ResponseWriter, r *http.Request) io.Reader {
	return idleBody{r.Body, http.NewResponseController(w)}
}

func (b idleBody) Read(p []byte) (int, error) {
	b.control.SetReadDeadline(time.Now().Add(idleTimeout)) // unsupported in tests without a connection
	n, err := b.Reader.Read(p)
	if err != nil {
		b.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

// idleWriter is a response whose writes time out. It writes pieces, so that
// one deadline covers a piece and not the whole of a large blob.
type idleWriter struct {
	http.ResponseWriter
	control *http.ResponseController
}

func newIdleWriter(w http.ResponseWriter) idleWriter {
	return idleWriter{w, http.NewResponseController(w)}
}

func (w idleWriter) extend() { w.control.SetWriteDeadline(time.Now().Add(idleTimeout)) }

func (w idleWriter) Write(p []byte) (int, error) {
	w.extend()
	return w.ResponseWriter.Write(p)
}

// ReadFrom keeps sendfile: io.CopyN on the response reaches the connection's
// own ReadFrom, 4 MiB at a time.
func (w idleWriter) ReadFrom(r io.Reader) (total int64, err error) {
	const piece = 4 << 20
	// ServeContent passes an io.LimitedReader; sendfile needs the limit to
	// wrap the file itself, and only once.
	src, left := r, int64(1<<62)
	if l, ok := r.(*io.LimitedReader); ok {
		src, left = l.R, l.N
	}
	for left > 0 {
		w.extend()
		want := min(piece, left)
		n, err := io.CopyN(w.ResponseWriter, src, want)
		total, left = total+n, left-n
		if l, ok := r.(*io.LimitedReader); ok {
			l.N -= n
		}
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
