package pki

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	renewTimeout = 30 * time.Second // one request to a master
	renewRetry   = time.Minute      // upper bound of the wait after a failure; half a life is 12 h
	urgentRetry  = 4 * time.Second  // the same while the CA is rotated, and when the certificate has run out
)

// Keychain holds the live node certificate and the CAs of the cluster: one, or two while the CA is
// rotated. TLS configurations read it through GetCertificate and GetClientCertificate, so a renewed
// certificate is used from the next handshake on, with no restart and no cut connection. Safe for
// concurrent use.
type Keychain struct {
	who   Identity
	trust atomic.Pointer[trust]
	leaf  atomic.Pointer[tls.Certificate]
	other atomic.Pointer[map[string]*tls.Certificate] // by CAName; see Offer
	want  atomic.Pointer[string]                      // digest of the CA that is to have signed the leaf
	poke  chan struct{}

	// changing is held from the check of new CAs or a new certificate until they are on disk and in use: each is
	// checked against the other, and a node whose disk has two that do not belong together never starts again.
	changing sync.Mutex
}

// trust is what peers are verified by. It is replaced as a whole.
type trust struct {
	cas   []*x509.Certificate
	roots *x509.CertPool
}

func newTrust(bundle []byte) (*trust, error) {
	cas, err := ParseBundle(bundle)
	if err != nil {
		return nil, fmt.Errorf("cluster CA: %w", err)
	}
	t := &trust{cas: cas, roots: x509.NewCertPool()}
	for _, ca := range cas {
		t.roots.AddCert(ca)
	}
	return t, nil
}

// NewKeychain verifies that chain (leaf, CA) and key belong together and to a CA of the bundle, and
// holds them. An expired leaf is accepted, because a machine that was off for days must come back by
// itself: see Expired, and Run, which renews it at once.
func NewKeychain(bundle, chainPEM, keyPEM []byte, now time.Time) (*Keychain, error) {
	t, err := newTrust(bundle)
	if err != nil {
		return nil, err
	}
	k := &Keychain{poke: make(chan struct{}, 1)}
	k.trust.Store(t)
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

// check verifies a pair against the CAs at the time now.
func (k *Keychain) check(chainPEM, keyPEM []byte, now time.Time) (*tls.Certificate, Identity, error) {
	pair, err := keyPair(chainPEM, keyPEM)
	if err != nil {
		return nil, Identity{}, err
	}
	t := k.trust.Load()
	cluster, err := ClusterOf(t.cas[0])
	if err != nil {
		return nil, Identity{}, err
	}
	who, err := Verify([]*x509.Certificate{pair.Leaf}, t.roots, cluster, now)
	if err != nil {
		return nil, Identity{}, fmt.Errorf("node certificate: %w", err)
	}
	// The CA travels in the chain: a joining machine knows only its digest.
	pair.Certificate = [][]byte{pair.Certificate[0], t.signer(pair.Leaf).Raw}
	return pair, who, nil
}

// signer is the CA that has signed a verified leaf. The CAs of a cluster have one name; keys differ.
func (t *trust) signer(leaf *x509.Certificate) *x509.Certificate {
	for _, ca := range t.cas {
		if leaf.CheckSignatureFrom(ca) == nil {
			return ca
		}
	}
	return nil
}

// Identity returns who this node is.
func (k *Keychain) Identity() Identity { return k.who }

// CA returns the certificate of the CA that has signed the live certificate.
func (k *Keychain) CA() *x509.Certificate {
	leaf := k.leaf.Load()
	ca, err := x509.ParseCertificate(leaf.Certificate[1])
	if err != nil {
		panic(err) // check put it there, parsed
	}
	return ca
}

// CAs returns the certificates of all CAs that the node believes. The caller must not change them.
func (k *Keychain) CAs() []*x509.Certificate { return k.trust.Load().cas }

// Roots returns the pool that holds the CAs. The caller must not change it.
func (k *Keychain) Roots() *x509.CertPool { return k.trust.Load().roots }

// Trust replaces the CAs that the node believes, when save, if not nil, has made them durable. It refuses a
// set in which the CA of the node's own certificate is missing: every peer would turn the node away.
func (k *Keychain) Trust(bundle []byte, save func(bundle []byte) error) error {
	t, err := newTrust(bundle)
	if err != nil {
		return err
	}
	k.changing.Lock()
	defer k.changing.Unlock()
	if cluster, _ := ClusterOf(t.cas[0]); cluster != k.who.Cluster {
		return fmt.Errorf("CA bundle is of cluster %s, not of %s", cluster, k.who.Cluster)
	}
	if t.signer(k.leaf.Load().Leaf) == nil {
		return errors.New("the certificate of this node is of a CA that the cluster has dropped: join this node again with a token")
	}
	if save != nil {
		if err := save(bundle); err != nil {
			return fmt.Errorf("save the cluster's CAs: %w", err)
		}
	}
	k.trust.Store(t)
	return nil
}

// Want says which CA is to have signed the node's certificate. If it is another one, Run renews the
// certificate at once.
func (k *Keychain) Want(digest string) {
	if old := k.want.Swap(&digest); old != nil && *old == digest {
		return
	}
	select {
	case k.poke <- struct{}{}:
	default: // it looks anyway
	}
}

// due reports whether the certificate is to be renewed now, and for its CA's sake.
func (k *Keychain) due() (now, foreign bool) {
	want := k.want.Load()
	foreign = want != nil && *want != "" && DigestOf(k.CA()).String() != *want
	return foreign || time.Until(k.RenewAt()) <= 0, foreign
}

// Offer sets the certificates that are shown on join connections to those who believe another CA than
// that of the live one: machines with an older token, and nodes that were away. Keys are CANames.
func (k *Keychain) Offer(other map[string]*tls.Certificate) { k.other.Store(&other) }

// Pair makes a certificate for Offer.
func (k *Keychain) Pair(chainPEM, keyPEM []byte, now time.Time) (*tls.Certificate, error) {
	pair, _, err := k.check(chainPEM, keyPEM, now)
	return pair, err
}

// GetJoinCertificate serves tls.Config.GetCertificate of join connections. The client's hello names
// the CA that it believes.
func (k *Keychain) GetJoinCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if other := k.other.Load(); other != nil {
		if pair := (*other)[hello.ServerName]; pair != nil {
			return pair, nil
		}
	}
	return k.leaf.Load(), nil
}

// Leaf returns the live certificate. The caller must not change it.
func (k *Keychain) Leaf() *tls.Certificate { return k.leaf.Load() }

// Swap takes a renewed certificate into use, when save, if not nil, has made it durable. It must be for the
// same node and role.
func (k *Keychain) Swap(chainPEM, keyPEM []byte, now time.Time, save func(chainPEM, keyPEM []byte) error) error {
	k.changing.Lock()
	defer k.changing.Unlock()
	pair, who, err := k.check(chainPEM, keyPEM, now)
	if err != nil {
		return err
	}
	if who != k.who {
		return fmt.Errorf("renewed certificate is for %s (%s %s), not for this node %s (%s %s)",
			who.Name, who.Role, who.ID, k.who.Name, k.who.Role, k.who.ID)
	}
	if save != nil {
		if err := save(chainPEM, keyPEM); err != nil {
			return fmt.Errorf("save renewed certificate: %w", err)
		}
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

// Run renews the certificate at half life, or when it is not of the CA that Want named, until ctx
// ends. save, if not nil, makes the new pair durable before it is taken into use. A failure is retried
// with growing pauses; the old certificate serves on.
func (k *Keychain) Run(ctx context.Context, log *slog.Logger, sign Sign, save func(chainPEM, keyPEM []byte) error) error {
	pause, said := time.Second, ""
	for {
		wait := time.Until(k.RenewAt())
		now, foreign := k.due()
		if now {
			err := k.renew(ctx, sign, save)
			still, _ := k.due()
			switch {
			case err == nil && !still:
				log.Info("node certificate renewed", "not_after", k.Leaf().Leaf.NotAfter, "ca", DigestOf(k.CA()).String()[:12])
				pause, said = time.Second, ""
				continue
			case err != nil && ctx.Err() == nil && err.Error() != said: // masters may be away for days
				said = err.Error()
				log.Warn("node certificate not renewed", "err", err, "not_after", k.Leaf().Leaf.NotAfter)
			}
			wait, pause = pause, min(2*pause, renewRetry)
			if foreign || k.Expired(time.Now()) { // the whole cluster waits for it, or this node for the cluster
				pause = min(pause, urgentRetry)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-k.poke:
			pause = time.Second
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
	return k.Swap(chain, req.Key, time.Now(), save)
}
