package lb

import (
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// switchProtocols hands the client's connection over after a 101, and moves
// bytes both ways until both ends are closed (WebSocket and others).
func (x *exchange) switchProtocols(u *upstream, resp *http.Response) {
	x.out.headAfter = time.Since(x.start)
	want, got := x.upgrade(), upgradeOf(resp.Header)
	if !strings.EqualFold(want, got) {
		x.out.failed = true
		x.page(http.StatusBadGateway, "Protocol mismatch", "The app switched to another protocol than asked for.")
		return
	}
	conn, rw, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		x.out.failed = true
		x.page(http.StatusBadGateway, "Upgrade impossible", "This connection cannot change its protocol.")
		return
	}
	defer conn.Close()
	x.out.status, x.wrote = resp.StatusCode, true
	_ = conn.SetDeadline(time.Time{}) // from here the ends decide
	stripHops(resp.Header)
	resp.Header.Set("Connection", "Upgrade")
	resp.Header.Set("Upgrade", got)
	_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	_ = resp.Header.Write(rw)
	_, _ = rw.WriteString("\r\n")
	early, _ := u.br.Peek(u.br.Buffered()) // sent right behind the head
	_, _ = rw.Write(early)
	if rw.Flush() != nil {
		return // the client left: the deferred closes end both
	}
	sent, _ := rw.Reader.Peek(rw.Reader.Buffered())
	if _, err := u.Write(sent); err != nil {
		return
	}
	x.out.bytes = relay(conn, u.Conn) + int64(len(early))
}

// halfCloser is what TCP and TLS connections offer to end one direction.
type halfCloser interface{ CloseWrite() error }

// lingerLimit is how long the other direction may go on after one has ended.
const lingerLimit = 5 * time.Minute

// relay moves bytes both ways (in the kernel where both are TCP) and returns
// how many went to a. An end of one direction is passed on as such.
func relay(a, b net.Conn) (toA int64) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		pipe(b, a)
	}()
	toA = pipe(a, b)
	<-done
	return toA
}

func pipe(dst, src net.Conn) int64 {
	n, err := io.Copy(plain(dst), plain(src))
	if hc, ok := dst.(halfCloser); ok && err == nil && hc.CloseWrite() == nil {
		_ = dst.SetReadDeadline(time.Now().Add(lingerLimit))
		return n
	}
	dst.Close()
	src.Close()
	return n
}

// plain unwraps a TCP connection, for io.Copy to find splice.
func plain(c net.Conn) net.Conn {
	if s, ok := c.(*slotted); ok {
		return s.TCPConn
	}
	return c
}
