// Package wire is the one TCP port between nodes. Every connection is TLS 1.3; the ALPN protocol of
// the handshake selects who serves it:
//
//	appliance/raft   the consensus transport, masters only; appliance/raft/N after a recovery (RaftProtocol)
//	h2               internal RPC under /rpc/..., feeds, blobs, log streams (HTTP/2)
//	appliance/nfs    the volume server
//	appliance/join   HTTP/1.1 for a machine that has no certificate yet; only the server is authenticated
//
// All but the last need a node certificate of this cluster from both sides. A peer is known by the
// identity in its certificate, never by address or host name.
package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"appliance/node/pki"
)

// Port is the port between nodes.
const Port = 7600

// ALPN protocol names.
const (
	Raft = "appliance/raft"
	HTTP = "h2"
	NFS  = "appliance/nfs"
	Join = "appliance/join"
)

const (
	handshakeTimeout = 5 * time.Second // also bounds what an unauthenticated peer can hold open
	maxHandshakes    = 128             // at once; about 1 ms of CPU each, so a flood costs at most this much memory
	maxConns         = 8192            // open connections; 5,000 agents with one or two each
	maxJoins         = 64              // open unauthenticated connections
	userTimeout      = 5 * time.Second // TCP_USER_TIMEOUT: unacknowledged data kills a connection
	keepAliveIdle    = 5 * time.Second
)

// ErrRefused says that the peer is not who it must be for this connection.
var ErrRefused = errors.New("peer refused")

// Peer is the authenticated other side of a connection.
type Peer struct {
	pki.Identity
	Addr string // remote ip:port as seen here
	// Expired is set on join connections only: the certificate is genuine but ran out, so its holder
	// may do nothing but renew it.
	Expired  bool
	NotAfter time.Time // end of the certificate, on join connections
}

// Known reports whether the peer showed a certificate of this cluster.
func (p Peer) Known() bool { return p.ID != "" }

type peerKey struct{}

// PeerFrom returns who sent a request that came in through a Server. On join requests of a machine
// without a certificate only Addr is set. The bool is false outside of such requests.
func PeerFrom(ctx context.Context) (Peer, bool) {
	p, ok := ctx.Value(peerKey{}).(Peer)
	return p, ok
}

// WithPeer returns a context as a request from p has it. For tests of handlers.
func WithPeer(ctx context.Context, p Peer) context.Context {
	return context.WithValue(ctx, peerKey{}, p)
}

// mutual returns the TLS configuration common to both sides.
func mutual(keys *pki.Keychain, alpn []string) *tls.Config {
	return &tls.Config{
		MinVersion:           tls.VersionTLS13,
		NextProtos:           alpn,
		GetCertificate:       keys.GetCertificate,
		GetClientCertificate: keys.GetClientCertificate,
		ClientAuth:           tls.RequireAnyClientCert,
		// Verification is ours, in VerifyConnection: identity is a URI, not a host name.
		InsecureSkipVerify:     true,
		SessionTicketsDisabled: true, // connections live long; a resumed one would skip nothing we can spare
		VerifyConnection: func(cs tls.ConnectionState) error {
			who, err := verify(keys, cs)
			if err != nil {
				return err
			}
			if cs.NegotiatedProtocol == Raft && who.Role != pki.Master {
				return fmt.Errorf("%w: %s is an %s, and only masters speak raft", ErrRefused, who.Name, who.Role)
			}
			return nil
		},
	}
}

func verify(keys *pki.Keychain, cs tls.ConnectionState) (pki.Identity, error) {
	who, err := pki.Verify(cs.PeerCertificates, keys.Roots(), keys.Identity().Cluster, time.Now())
	if err != nil {
		return who, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return who, nil
}

// PeerOf returns the identity behind a connection that Dial or a Server handler gave out.
func PeerOf(conn net.Conn) (Peer, error) {
	tc, ok := conn.(*tls.Conn)
	if !ok {
		return Peer{}, fmt.Errorf("%w: not a connection between nodes", ErrRefused)
	}
	certs := tc.ConnectionState().PeerCertificates
	if len(certs) == 0 {
		return Peer{Addr: conn.RemoteAddr().String()}, nil
	}
	who, err := pki.IdentityOf(certs[0])
	return Peer{Identity: who, Addr: conn.RemoteAddr().String()}, err
}
