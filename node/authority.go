package node

import (
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io/fs"
	"sync"
	"time"

	"appliance/node/model"
	"appliance/node/pki"
)

// authority is a master's right to sign certificates: the CAs of the cluster
// whose keys it holds. Safe for concurrent use.
type authority struct {
	dir   pki.Dir
	keys  *pki.Keychain
	trust func() *model.Trust // nil as long as the state has none

	mu    sync.Mutex
	held  map[string]*pki.CA // by digest
	shown map[string]*tls.Certificate
}

// ca returns a believed CA with its key.
func (a *authority) ca(digest string) (*pki.CA, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if ca := a.held[digest]; ca != nil {
		return ca, nil
	}
	for _, cert := range a.keys.CAs() {
		if pki.DigestOf(cert).String() != digest {
			continue
		}
		ca, err := a.dir.LoadAuthority(cert)
		if err != nil {
			return nil, err
		}
		if a.held == nil {
			a.held = map[string]*pki.CA{}
		}
		a.held[digest] = ca
		return ca, nil
	}
	return nil, errors.New("the cluster does not believe the CA " + digest)
}

// forget drops CAs that the cluster does not believe any more.
func (a *authority) forget(keep func(digest string) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for digest := range a.held {
		if !keep(digest) {
			delete(a.held, digest)
		}
	}
}

// issuer is the CA that signs now. A master that has not got the newest key
// yet signs with another one that is believed: the node asks again elsewhere.
func (a *authority) issuer() (*pki.CA, error) {
	want := pki.DigestOf(a.keys.CA()).String()
	if t := a.trust(); t != nil && t.CA.Active != "" {
		want = t.CA.Use()
	}
	ca, err := a.ca(want)
	if err == nil {
		return ca, nil
	}
	for _, cert := range a.keys.CAs() {
		if other, e := a.ca(pki.DigestOf(cert).String()); e == nil {
			return other, nil
		}
	}
	return nil, model.Errorf(model.CodeUnavailable, "this master cannot sign certificates now").Because("%v", err).Try("ask another master")
}

// sign issues a certificate by the CA that signs now.
func (a *authority) sign(csr []byte, id, name string, role model.Role, addr string) ([]byte, error) {
	ca, err := a.issuer()
	if err != nil {
		return nil, err
	}
	return issue(ca, time.Now().UTC(), csr, id, name, role, addr)
}

// bundle is what a new node is to believe, the CA that signs first.
func (a *authority) bundle() []byte {
	certs := a.keys.CAs()
	if t := a.trust(); t != nil && len(t.CA.Keys) > 0 {
		if raw := bundleOf(&t.CA); len(raw) > 0 {
			return raw
		}
	}
	return pki.Bundle(certs)
}

// bundleOf is the CA certificates of the ring, the one in use first.
func bundleOf(r *model.Ring) []byte {
	var out []byte
	for _, id := range r.IDs() {
		for _, k := range r.Keys {
			if k.ID == id {
				out = append(out, k.Cert...)
			}
		}
	}
	return out
}

// offer makes a certificate of every CA that this master believes, if there
// are several: for machines that know only one of them. That of the CA in use
// is among them, since it is there before the live one changes.
func (a *authority) offer(self Config) error {
	now := time.Now().UTC()
	next := map[string]*tls.Certificate{}
	var failed error
	certs := a.keys.CAs()
	if len(certs) == 1 {
		certs = nil
	}
	for _, cert := range certs {
		digest := pki.DigestOf(cert)
		name := pki.CAName(digest.String())
		if old := a.shown[name]; old != nil && now.Before(old.Leaf.NotAfter.Add(-pki.LeafLife/2)) {
			next[name] = old
			continue
		}
		pair, err := a.pair(digest.String(), self, now)
		if errors.Is(err, fs.ErrNotExist) {
			continue // fetched soon
		}
		if err != nil {
			failed = err
			continue
		}
		next[name] = pair
	}
	a.shown = next
	a.keys.Offer(next)
	return failed
}

func (a *authority) pair(digest string, self Config, now time.Time) (*tls.Certificate, error) {
	chain, key, err := a.own(digest, self, now)
	if err != nil {
		return nil, err
	}
	return a.keys.Pair(chain, key, now)
}

// own is a certificate of this master by one of the CAs that it believes, and its key.
func (a *authority) own(digest string, self Config, now time.Time) (chainPEM, keyPEM []byte, err error) {
	ca, err := a.ca(digest)
	if err != nil {
		return nil, nil, err
	}
	req, err := pki.NewRequest(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	chainPEM, err = issue(ca, now, req.CSR, self.ID, self.Name, self.Role, self.Advertise)
	return chainPEM, req.Key, err
}

// private is what a new master is handed: the key of the first CA of the
// bundle, and all other private keys by id.
func (a *authority) private(bundle []byte) (first []byte, others map[string][]byte, err error) {
	certs, err := pki.ParseBundle(bundle)
	if err != nil {
		return nil, nil, err
	}
	ids, err := a.dir.KeyIDs()
	if err != nil {
		return nil, nil, err
	}
	others = map[string][]byte{}
	for _, id := range ids {
		key, err := a.dir.Key(id)
		if err != nil {
			return nil, nil, err
		}
		if id == pki.DigestOf(certs[0]).String() {
			first = key
			continue
		}
		others[id] = key
	}
	return first, others, nil
}
