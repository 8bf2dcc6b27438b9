package pki

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

const (
	renewTimeout = 30 * time.Second // one request to a master
	renewRetry   = time.Minute      // upper bound of the wait after a failure; half a life is 12 h
)

// Keychain holds the live node certificate and the CA of the cluster. TLS configurations read it
// through GetCertificate and GetClientCertificate, so a renewed certificate is used from the next
// handshake on, with no restart. Safe for concurrent use.
type Keychain struct {
	who   Identity
	ca    *x509.Certificate
	roots *x509.CertPool
	leaf  atomic.Pointer[tls.Certificate]
}

// NewKeychain verifies that chain (leaf, CA) and key belong together and to ca, and holds them. An
// expired leaf is accepted, because a machine that was off for days must come back by itself: see
// Expired, and Run, which renews it at once.
func NewKeychain(caPEM, chainPEM, keyPEM []byte, now time.Time) (*Keychain, error) {
	ca, err := ParseCertificate(caPEM)
	if err != nil {
		return nil, fmt.Errorf("cluster CA: %w", err)
	}
	if _, err := ClusterOf(ca); err != nil {
		return nil, err
	}
	k := &Keychain{ca: ca, roots: x509.NewCertPool()}
	k.roots.AddCert(ca)
	leaf, err := ParseCertificate(chainPEM)
	if err != nil {
		return nil, fmt.Errorf("node certificate: %w", err)
	}
	if now.After(leaf.NotAfter) {
		now = leaf.NotAfter
	}
	pair, who, err := k.check(chainPEM, keyPEM, now)
	if err != nil {
		return nil, err
	}
	k.who = who
	k.leaf.Store(pair)
	return k, nil
}

// check verifies a pair against the CA at the time now.
func (k *Keychain) check(chainPEM, keyPEM []byte, now time.Time) (*tls.Certificate, Identity, error) {
	pair, err := keyPair(chainPEM, keyPEM)
	if err != nil {
		return nil, Identity{}, err
	}
	cluster, err := ClusterOf(k.ca)
	if err != nil {
		return nil, Identity{}, err
	}
	who, err := Verify([]*x509.Certificate{pair.Leaf}, k.roots, cluster, now)
	if err != nil {
		return nil, Identity{}, fmt.Errorf("node certificate: %w", err)
	}
	// The CA travels in the chain: a joining machine knows only its digest.
	pair.Certificate = [][]byte{pair.Certificate[0], k.ca.Raw}
	return pair, who, nil
}

// Identity returns who this node is.
func (k *Keychain) Identity() Identity { return k.who }

// CA returns the certificate of the cluster CA.
func (k *Keychain) CA() *x509.Certificate { return k.ca }

// CAPEM returns the certificate of the cluster CA in PEM form.
func (k *Keychain) CAPEM() []byte { return encodeCert(k.ca.Raw) }

// Roots returns the pool that holds the cluster CA. The caller must not change it.
func (k *Keychain) Roots() *x509.CertPool { return k.roots }

// Leaf returns the live certificate. The caller must not change it.
func (k *Keychain) Leaf() *tls.Certificate { return k.leaf.Load() }

// Swap takes a renewed certificate into use. It must be for the same node and role.
func (k *Keychain) Swap(chainPEM, keyPEM []byte, now time.Time) error {
	pair, who, err := k.check(chainPEM, keyPEM, now)
	if err != nil {
		return err
	}
	if who != k.who {
		return fmt.Errorf("renewed certificate is for %s (%s %s), not for this node %s (%s %s)",
			who.Name, who.Role, who.ID, k.who.Name, k.who.Role, k.who.ID)
	}
	k.leaf.Store(pair)
	return nil
}

// Expired reports whether peers refuse the live certificate at the time now. Such a node can only
// renew, over the join protocol.
func (k *Keychain) Expired(now time.Time) bool { return now.After(k.leaf.Load().Leaf.NotAfter) }

// GetCertificate serves tls.Config.GetCertificate.
func (k *Keychain) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return k.leaf.Load(), nil
}

// GetClientCertificate serves tls.Config.GetClientCertificate.
func (k *Keychain) GetClientCertificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return k.leaf.Load(), nil
}

// RenewAt returns when the live certificate is to be renewed: at half of its life.
func (k *Keychain) RenewAt() time.Time {
	leaf := k.leaf.Load().Leaf
	return leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2)
}

// Sign asks a master (or the local CA, on a master) to sign a request, and returns the chain in PEM form.
type Sign func(ctx context.Context, csrPEM []byte) (chainPEM []byte, err error)

// Run renews the certificate at half life until ctx ends. save, if not nil, makes the new pair durable
// before it is taken into use. A failure is retried with growing pauses; the old certificate serves on.
func (k *Keychain) Run(ctx context.Context, log *slog.Logger, sign Sign, save func(chainPEM, keyPEM []byte) error) error {
	pause := time.Second
	for {
		wait := time.Until(k.RenewAt())
		if wait <= 0 {
			if err := k.renew(ctx, sign, save); err == nil {
				log.Info("node certificate renewed", "not_after", k.Leaf().Leaf.NotAfter)
				pause = time.Second
				continue
			} else if ctx.Err() == nil {
				log.Warn("node certificate not renewed", "err", err, "not_after", k.Leaf().Leaf.NotAfter, "retry_in", pause)
			}
			wait, pause = pause, min(2*pause, renewRetry)
		}
		select {
		case <-ctx.Done():
			return nil
		// Timers follow the monotonic clock: a machine that slept must look at the wall clock again.
		case <-time.After(min(wait, renewRetry)):
		}
	}
}

func (k *Keychain) renew(ctx context.Context, sign Sign, save func(chainPEM, keyPEM []byte) error) error {
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	req, err := NewRequest(rand.Reader)
	if err != nil {
		return err
	}
	chain, err := sign(ctx, req.CSR)
	if err != nil {
		return fmt.Errorf("ask a master to sign: %w", err)
	}
	if _, who, err := k.check(chain, req.Key, time.Now()); err != nil {
		return err
	} else if who != k.who {
		return fmt.Errorf("a master signed for %s, not for this node %s", who.Name, k.who.Name)
	}
	if save != nil {
		if err := save(chain, req.Key); err != nil {
			return fmt.Errorf("save renewed certificate: %w", err)
		}
	}
	return k.Swap(chain, req.Key, time.Now())
}
