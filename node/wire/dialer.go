package wire

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"appliance/node/pki"
)

const (
	// dialTimeout bounds connect and handshake; the default of a dial whose context ends later.
	dialTimeout = 3 * time.Second
	// rpcDialTimeout is shorter, since there is another master to ask.
	rpcDialTimeout = time.Second
	// An idle RPC connection is pinged after pingAfter and given up pingTimeout later, so a peer that
	// vanished without a word is noticed in about a second.
	pingAfter   = 400 * time.Millisecond
	pingTimeout = 700 * time.Millisecond
	// Bulk connections outlive a short stall: starting a blob again costs more than waiting.
	bulkPingAfter   = 3 * time.Second
	bulkPingTimeout = 5 * time.Second
	rpcUserTimeout  = 1500 * time.Millisecond
)

// Dialer makes connections to other nodes as the node of its keychain. Safe for concurrent use.
type Dialer struct {
	keys *pki.Keychain
	// expect, if set, returns the node id that must answer at an address, "" if any node may.
	expect atomic.Pointer[func(addr string) string]
	rpc    *http.Client
	bulk   *http.Client
}

// NewDialer returns a dialer that shows the certificate of keys.
func NewDialer(keys *pki.Keychain) *Dialer {
	d := &Dialer{keys: keys}
	d.rpc = d.client(rpcDialTimeout, rpcUserTimeout, pingAfter, pingTimeout)
	d.bulk = d.client(dialTimeout, userTimeout, bulkPingAfter, bulkPingTimeout)
	return d
}

// Expect sets how addresses of masters map to node ids (from the raft configuration). A dial to a
// mapped address fails unless that node answers, so a reused address cannot take a master's place.
func (d *Dialer) Expect(id func(addr string) string) { d.expect.Store(&id) }

// Client returns the HTTP/2 client for internal RPC: https://<addr>/rpc/.... Connections are shared and
// checked by pings. Requests need a deadline or a cancelled context; the client itself sets none, since
// feeds and long polls go through it.
func (d *Dialer) Client() *http.Client { return d.rpc }

// BulkClient is Client over separate connections, for blobs and other large bodies, which would delay
// RPCs on a shared one.
func (d *Dialer) BulkClient() *http.Client { return d.bulk }

// Close closes idle connections.
func (d *Dialer) Close() {
	d.rpc.CloseIdleConnections()
	d.bulk.CloseIdleConnections()
}

func (d *Dialer) client(dial, unacked, ping, pingTimeout time.Duration) *http.Client {
	var h2 http.Protocols
	h2.SetHTTP2(true)
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialTLSContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
				ctx, cancel := context.WithTimeout(ctx, dial)
				defer cancel()
				return d.dial(ctx, addr, HTTP, unacked)
			},
			Protocols:           &h2,
			IdleConnTimeout:     90 * time.Second,
			TLSHandshakeTimeout: dialTimeout,
			DisableCompression:  true,
			HTTP2: &http.HTTP2Config{
				MaxReceiveBufferPerStream:     1 << 20,
				MaxReceiveBufferPerConnection: 3 << 20,
				SendPingTimeout:               ping,
				PingTimeout:                   pingTimeout,
				WriteByteTimeout:              pingTimeout,
			},
		},
	}
}

// Dial connects to addr (host:port) and authenticates both sides for an ALPN protocol.
func (d *Dialer) Dial(ctx context.Context, addr, alpn string) (net.Conn, error) {
	unacked := userTimeout
	if strings.HasPrefix(alpn, Raft) {
		unacked = rpcUserTimeout
	}
	return d.dial(ctx, addr, alpn, unacked)
}

func (d *Dialer) dial(ctx context.Context, addr, alpn string, unacked time.Duration) (*tls.Conn, error) {
	conf := mutual(d.keys, []string{alpn})
	base := conf.VerifyConnection
	conf.VerifyConnection = func(cs tls.ConnectionState) error {
		if cs.NegotiatedProtocol != alpn {
			return fmt.Errorf("%w: it does not serve %s", ErrRefused, alpn)
		}
		if err := base(cs); err != nil {
			return err
		}
		return d.checkExpected(addr, cs.PeerCertificates[0])
	}
	return dialTLS(ctx, addr, conf, unacked)
}

func (d *Dialer) checkExpected(addr string, leaf *x509.Certificate) error {
	expect := d.expect.Load()
	if expect == nil {
		return nil
	}
	want := (*expect)(addr)
	if want == "" {
		return nil
	}
	who, err := pki.IdentityOf(leaf)
	if err != nil {
		return err
	}
	if who.ID != want {
		return fmt.Errorf("%w: node %s (%s) answers at %s, where %s is expected: the address was taken over; remove the old node or give it back its address",
			ErrRefused, who.ID, who.Name, addr, want)
	}
	return nil
}

func dialTLS(ctx context.Context, addr string, conf *tls.Config, unacked time.Duration) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var nd net.Dialer
	raw, err := nd.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect to node at %s: %w", addr, err)
	}
	tune(raw, unacked)
	conn := tls.Client(raw, conf)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("authenticate node at %s: %w", addr, explain(err))
	}
	return conn, nil
}

// explain adds what the bare alert of the other side leaves out.
func explain(err error) error {
	var alert tls.AlertError
	if !errors.As(err, &alert) {
		return err
	}
	switch {
	case uint8(alert) == 120: // no_application_protocol, RFC 7301
		return fmt.Errorf("%w: the node does not serve this protocol (is it a master?)", err)
	default:
		return fmt.Errorf("%w: the node refused our certificate: see its log at level debug", err)
	}
}

// JoinClient returns the client of a machine that has only a token. It talks to nobody but a master of
// the cluster that the token pins, and checks that before it sends a byte. found, if not nil, receives
// the CA certificate of each verified connection. keys, if not nil, are shown (renewal of an expired
// certificate); the token may then be nil, and the keychain's own CA counts.
func JoinClient(token *pki.Token, keys *pki.Keychain, found func(*x509.Certificate)) *http.Client {
	conf := &tls.Config{
		MinVersion:         tls.VersionTLS13,
		NextProtos:         []string{Join},
		InsecureSkipVerify: true, // verified against the token or the known CA below
		VerifyConnection: func(cs tls.ConnectionState) error {
			if cs.NegotiatedProtocol != Join {
				return fmt.Errorf("%w: it does not admit machines: give the address of a master", ErrRefused)
			}
			if token == nil {
				return verifyMaster(keys, cs)
			}
			ca, _, err := token.VerifyCA(cs.PeerCertificates, time.Now())
			if err == nil && found != nil {
				found(ca)
			}
			return err
		},
	}
	if keys != nil {
		conf.GetClientCertificate = keys.GetClientCertificate
	}
	// The hello names the CA that we believe: while the CA is rotated a master has a certificate of each.
	believed := func() string {
		if token != nil {
			return pki.CAName(token.CA.String())
		}
		return pki.CAName(pki.DigestOf(keys.CA()).String())
	}
	return &http.Client{
		Timeout:       90 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialTLSContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
				conf := conf.Clone()
				if token != nil || keys != nil {
					conf.ServerName = believed()
				}
				return dialTLS(ctx, addr, conf, userTimeout)
			},
			DisableKeepAlives: true,
		},
	}
}

func verifyMaster(keys *pki.Keychain, cs tls.ConnectionState) error {
	if keys == nil {
		return errors.New("join needs a token")
	}
	who, err := verify(keys, cs)
	if err != nil {
		return err
	}
	if who.Role != pki.Master {
		return fmt.Errorf("%w: %s is not a master", ErrRefused, who.Name)
	}
	return nil
}
