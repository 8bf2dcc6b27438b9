// Package wiretest makes the identities of a throw-away cluster for tests that need real TLS.
package wiretest

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"appliance/node/pki"
	"appliance/node/wire"
)

// Cluster is a CA for tests.
type Cluster struct{ CA *pki.CA }

// New makes a cluster named "test".
func New(t testing.TB) *Cluster {
	t.Helper()
	ca, err := pki.NewCA(rand.Reader, time.Now().Add(-30*24*time.Hour), "test")
	if err != nil {
		t.Fatal(err)
	}
	return &Cluster{CA: ca}
}

// Keychain returns the identity of a node whose name equals its id.
func (c *Cluster) Keychain(t testing.TB, id string, role pki.Role) *pki.Keychain {
	t.Helper()
	return c.KeychainAt(t, id, role, time.Now())
}

// KeychainAt returns an identity whose certificate was issued at a given time.
func (c *Cluster) KeychainAt(t testing.TB, id string, role pki.Role, at time.Time) *pki.Keychain {
	t.Helper()
	req, err := pki.NewRequest(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	who := pki.Identity{Cluster: c.CA.Cluster, ID: id, Name: id, Role: role}
	chain, err := c.CA.Issue(rand.Reader, at, req.CSR, who, nil)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := pki.NewKeychain(c.CA.CertPEM(), chain, req.Key, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// Listen returns a loopback listener.
func Listen(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

var ports atomic.Uint32 // given away by Addr

// Addr returns a loopback address that nobody else takes, for a server that is started later and again: the
// host is this process's own, so that neither another test nor an outgoing connection can have the port.
func Addr() string {
	pid := os.Getpid() // below 2^22
	host := netip.AddrFrom4([4]byte{127, byte(64 + pid>>16), byte(pid >> 8), byte(pid)})
	return netip.AddrPortFrom(host, uint16(20000+ports.Add(1)%40000)).String()
}

// Serve runs srv on a fresh loopback port until the test ends and returns the address.
func Serve(t testing.TB, srv *wire.Server) string {
	t.Helper()
	ln := Listen(t)
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { done <- srv.Run(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

// Quiet is a logger that says nothing.
func Quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
