package lb

import (
	"encoding/hex"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/textproto"
	"strings"
)

// hopByHop headers belong to one connection (RFC 9110 section 7.6.1).
var hopByHop = []string{
	"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

// requestID is the header that ties log lines of a request together.
const requestID = "X-Request-Id"

const maxRequestID = 128 // a longer one from a client is replaced

// outgoing builds the header sent to backends.
func (p *Proxy) outgoing(r *http.Request) http.Header {
	h := r.Header.Clone()
	stripHops(h)
	for _, k := range [...]string{"Expect", "Content-Length"} {
		delete(h, k) // the exchange writes its own
	}
	if strings.Contains(strings.ToLower(strings.Join(r.Header["Te"], ",")), "trailers") {
		h["Te"] = []string{"trailers"} // gRPC insists
	}
	if up := upgradeOf(r.Header); up != "" {
		h["Connection"], h["Upgrade"] = []string{"Upgrade"}, []string{up}
	}
	p.forwarded(h, r)
	return h
}

// forwarded tells the backend who asked. What the client claims about itself
// counts only if it is a trusted proxy.
func (p *Proxy) forwarded(h http.Header, r *http.Request) {
	peer, _, _ := net.SplitHostPort(r.RemoteAddr)
	proto := "http"
	if r.TLS != nil {
		proto = "https"
	}
	if !p.trusted(peer) {
		for k := range h {
			if k == "Forwarded" || k == "X-Real-Ip" || strings.HasPrefix(k, "X-Forwarded-") {
				delete(h, k)
			}
		}
	}
	node := peer
	if strings.Contains(peer, ":") {
		node = `"[` + peer + `]"`
	}
	add := "for=" + node + ";host=" + quoted(r.Host) + ";proto=" + proto
	h["Forwarded"] = []string{strings.Join(append(h["Forwarded"], add), ", ")}
	h["X-Forwarded-For"] = []string{strings.Join(append(h["X-Forwarded-For"], peer), ", ")}
	if h["X-Forwarded-Proto"] == nil {
		h["X-Forwarded-Proto"] = []string{proto}
	}
	if h["X-Forwarded-Host"] == nil {
		h["X-Forwarded-Host"] = []string{r.Host}
	}
	if id := h.Get(requestID); id == "" || len(id) > maxRequestID {
		h[requestID] = []string{newRequestID()}
	}
}

func (p *Proxy) trusted(peer string) bool {
	if len(p.cfg.TrustedProxies) == 0 {
		return false
	}
	ip, err := netip.ParseAddr(peer)
	if err != nil {
		return false
	}
	for _, net := range p.cfg.TrustedProxies {
		if net.Contains(ip.Unmap()) {
			return true
		}
	}
	return false
}

// quoted writes a parameter value of the Forwarded header (RFC 7239).
func quoted(s string) string {
	for _, c := range s {
		if !(c == '-' || c == '.' || c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z') {
			return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
		}
	}
	return s
}

// stripHops removes hop-by-hop headers and those that Connection names.
func stripHops(h http.Header) {
	for _, v := range h["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			if name = textproto.TrimString(name); name != "" {
				h.Del(name)
			}
		}
	}
	for _, k := range hopByHop {
		delete(h, k)
	}
}

// upgradeOf returns the protocol a message asks or agrees to switch to.
func upgradeOf(h http.Header) string {
	for _, v := range h["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(textproto.TrimString(name), "upgrade") {
				return h.Get("Upgrade")
			}
		}
	}
	return ""
}

// newRequestID names a request; it need not be secret, only unlikely to repeat.
func newRequestID() string {
	var b [16]byte
	for i, n := 0, [2]uint64{rand.Uint64(), rand.Uint64()}; i < 16; i++ {
		b[i] = byte(n[i/8] >> (8 * (i % 8)))
	}
	return hex.EncodeToString(b[:])
}
