package sim

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"

	"appliance/node/pki"
	"appliance/node/wire"
)

// newClient speaks HTTP/2 as the client of package wire does, without TLS.
func newClient(port *Port) *http.Client {
	var h2 http.Protocols
	h2.SetUnencryptedHTTP2(true)
	return &http.Client{Transport: plain{&http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			return port.Dial(ctx, addr, wire.HTTP)
		},
		Protocols: &h2, IdleConnTimeout: 90 * time.Second, DisableCompression: true,
		HTTP2: &http.HTTP2Config{
			MaxReceiveBufferPerStream: 1 << 20, MaxReceiveBufferPerConnection: 3 << 20,
			SendPingTimeout: 400 * time.Millisecond, PingTimeout: 700 * time.Millisecond, WriteByteTimeout: 700 * time.Millisecond,
		},
	}}}
}

// plain sends what is meant for TLS without it.
type plain struct{ *http.Transport }

func (p plain) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Scheme = "http"
	return p.Transport.RoundTrip(r)
}

// newServer serves HTTP/2 and tells handlers who asks, as package wire does.
func newServer(h http.Handler) *http.Server {
	var h2 http.Protocols
	h2.SetUnencryptedHTTP2(true)
	return &http.Server{
		Protocols: &h2, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			name, _, _ := net.SplitHostPort(r.RemoteAddr)
			role := pki.Master
			if name[0] == 's' {
				role = pki.Agent
			}
			peer := wire.Peer{Identity: pki.Identity{Cluster: "sim", ID: name, Name: name, Role: role}, Addr: r.RemoteAddr}
			h.ServeHTTP(w, r.WithContext(wire.WithPeer(r.Context(), peer)))
		}),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: 1024, MaxReceiveBufferPerStream: 1 << 20, MaxReceiveBufferPerConnection: 3 << 20,
			SendPingTimeout: 5 * time.Second,
		},
	}
}
