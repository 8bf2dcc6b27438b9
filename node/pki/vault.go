package pki

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// dirKeys holds the private keys of a master beside ca.key, one a file, named
// by the id that the state gives them.
const (
	dirKeys = "keys"
	keyExt  = ".key"
)

// maxCAs bounds a bundle; two are in it during a rotation.
const maxCAs = 8

// String returns the digest in the form in which the state names a CA.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// CAName is the DNS label by which a client says in its hello which CA it
// believes: half of the digest in hex, since a label has 63 characters.
func CAName(digest string) string { return digest[:min(len(digest), 32)] }

// ParseBundle reads the CA certificates of one cluster, the signing one first.
func ParseBundle(data []byte) ([]*x509.Certificate, error) {
	if len(data) > maxPEM {
		return nil, fmt.Errorf("CA bundle of %d bytes is larger than %d", len(data), maxPEM)
	}
	var out []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" || len(out) == maxCAs {
			return nil, fmt.Errorf("CA bundle holds a %s, or more than %d certificates", block.Type, maxCAs)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		cluster, err := ClusterOf(cert)
		if err != nil {
			return nil, err
		}
		if len(out) > 0 && out[0].URIs[0].Host != cluster {
			return nil, errors.New("CA bundle is of two clusters")
		}
		out = append(out, cert)
	}
	if len(out) == 0 {
		return nil, errors.New("no PEM block CERTIFICATE")
	}
	return out, nil
}

// ParseChain reads what CA.Issue returns: leaf, then CA.
func ParseChain(data []byte) ([]*x509.Certificate, error) {
	if len(data) > maxPEM {
		return nil, fmt.Errorf("certificate chain of %d bytes is larger than %d", len(data), maxPEM)
	}
	var out []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		out = append(out, cert)
	}
	return out, nil
}

// Bundle is the reverse of ParseBundle.
func Bundle(certs []*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, encodeCert(c.Raw)...)
	}
	return out
}

// SaveBundle replaces the CA certificates that the node believes.
func (d Dir) SaveBundle(bundle []byte) error { return d.write(fileCA, bundle) }

// SaveKey stores a private key of the cluster under its id. Masters only.
func (d Dir) SaveKey(id string, data []byte) error {
	if !validLabel(id) && len(id) != 2*len(Digest{}) {
		return fmt.Errorf("key id %q is not possible", id)
	}
	return Dir(filepath.Join(string(d), dirKeys)).write(id+keyExt, data)
}

// Key reads a private key by its id. A CA's key may also be in ca.key, where
// init puts the first one.
func (d Dir) Key(id string) ([]byte, error) {
	data, err := Dir(filepath.Join(string(d), dirKeys)).read(filepath.Base(id) + keyExt)
	if !errors.Is(err, fs.ErrNotExist) {
		return data, err
	}
	if first, err := d.firstCA(); err == nil && first.Digest().String() == id {
		return first.KeyPEM()
	}
	return nil, fmt.Errorf("this node has no key %s: %w", id, fs.ErrNotExist)
}

// firstCA is the CA whose key is in ca.key.
func (d Dir) firstCA() (*CA, error) {
	certs, err := d.believed()
	if err != nil {
		return nil, err
	}
	key, err := d.read(fileCAKey)
	if err != nil {
		return nil, err
	}
	for _, c := range certs {
		var ca *CA
		if ca, err = LoadCA(encodeCert(c.Raw), key); err == nil {
			return ca, nil
		}
	}
	return nil, err
}

// KeyIDs lists the private keys that the directory holds, sorted. One whose file is lost counts as long as
// its copy is there: Key makes it again.
func (d Dir) KeyIDs() ([]string, error) {
	var ids []string
	for _, dir := range []string{dirKeys, filepath.Join(dirKeys, dirCopies)} {
		entries, err := os.ReadDir(filepath.Join(string(d), dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			if id, ok := strings.CutSuffix(e.Name(), keyExt); ok && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	if first, err := d.firstCA(); err == nil && !slices.Contains(ids, first.Digest().String()) {
		ids = append(ids, first.Digest().String())
	}
	slices.Sort(ids)
	return ids, nil
}

// RemoveKey forgets a private key. One that is not there is no error.
func (d Dir) RemoveKey(id string) error {
	if first, err := d.firstCA(); err == nil && first.Digest().String() == id {
		if err := d.remove(fileCAKey); err != nil {
			return err
		}
	}
	return Dir(filepath.Join(string(d), dirKeys)).remove(filepath.Base(id) + keyExt)
}

// RemoveOldCAKey removes ca.key if it is of no CA that the node believes.
func (d Dir) RemoveOldCAKey() error {
	if _, err := d.firstCA(); err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(os.Remove(filepath.Join(string(d), fileCAKey)), syncDir(string(d)))
}

// LoadAuthority joins a CA certificate with its key from the directory.
func (d Dir) LoadAuthority(cert *x509.Certificate) (*CA, error) {
	key, err := d.Key(DigestOf(cert).String())
	if err != nil {
		return nil, err
	}
	return LoadCA(encodeCert(cert.Raw), key)
}

// SaveGossipKeys stores the gossip keys, the one to send with first.
func (d Dir) SaveGossipKeys(keys [][]byte) error { return d.write(fileGossip, slices.Concat(keys...)) }

// GossipKeys reads the gossip keys, the one to send with first.
func (d Dir) GossipKeys() ([][]byte, error) {
	data, err := d.read(fileGossip)
	if err != nil {
		return nil, err
	}
	if len(data) == 0 || len(data)%GossipKeyBytes != 0 {
		return nil, fmt.Errorf("%s has %d bytes, not a multiple of %d: join this node again", filepath.Join(string(d), fileGossip), len(data), GossipKeyBytes)
	}
	return slices.Collect(slices.Chunk(data, GossipKeyBytes)), nil
}
