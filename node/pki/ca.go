package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/url"
	"time"
)

const (
	// caLife is long because replacing a CA needs every node; leaves are the short-lived part.
	caLife = 20 * 365 * 24 * time.Hour
	// LeafLife is the life of a node certificate. It is renewed at half of it.
	LeafLife = 24 * time.Hour
	// backdate lets a machine whose clock is behind accept a certificate made just now.
	backdate = 10 * time.Minute
	// maxPEM bounds what is parsed from a peer; a CSR or chain is about 1 KiB.
	maxPEM = 64 << 10
)

// ErrCSR says that a certificate request is malformed or not signed by its own key.
var ErrCSR = errors.New("certificate request is not valid")

// CA signs node certificates. Safe for concurrent use.
type CA struct {
	Cert    *x509.Certificate
	Cluster string
	key     crypto.Signer
}

// NewCA makes the certificate authority of a new cluster.
func NewCA(rand io.Reader, now time.Time, cluster string) (*CA, error) {
	if !validLabel(cluster) {
		return nil, fmt.Errorf("make CA: cluster id %q is not valid: use letters, digits and '-'", cluster)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand)
	if err != nil {
		return nil, fmt.Errorf("make CA key: %w", err)
	}
	serial, err := newSerial(rand)
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{"appliance"}, CommonName: "appliance CA " + cluster},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		URIs:                  []*url.URL{{Scheme: scheme, Host: cluster, Path: "/ca"}},
	}
	der, err := x509.CreateCertificate(rand, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign CA certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse CA certificate: %w", err)
	}
	return &CA{Cert: cert, Cluster: cluster, key: key}, nil
}

// LoadCA reads a CA from its PEM parts, as PEM returned them.
func LoadCA(certPEM, keyPEM []byte) (*CA, error) {
	cert, err := ParseCertificate(certPEM)
	if err != nil {
		return nil, fmt.Errorf("load CA certificate: %w", err)
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("load CA key: %w", err)
	}
	pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !pub.Equal(cert.PublicKey) {
		return nil, errors.New("load CA: the key does not belong to the certificate: restore both from one backup")
	}
	cluster, err := ClusterOf(cert)
	if err != nil {
		return nil, err
	}
	return &CA{Cert: cert, Cluster: cluster, key: key}, nil
}

// ClusterOf returns the cluster id that a CA certificate carries.
func ClusterOf(ca *x509.Certificate) (string, error) {
	if !ca.IsCA || len(ca.URIs) != 1 || ca.URIs[0].Scheme != scheme || !validLabel(ca.URIs[0].Host) {
		return "", errors.New("certificate is not the CA of a cluster: it carries no cluster id")
	}
	return ca.URIs[0].Host, nil
}

// CertPEM returns the public certificate. Every node holds it.
func (c *CA) CertPEM() []byte { return encodeCert(c.Cert.Raw) }

// KeyPEM returns the private key. It may only be handed to a joining master.
func (c *CA) KeyPEM() ([]byte, error) { return encodeKey(c.key) }

// Digest returns the SHA-256 of the CA certificate (DER), which join tokens carry.
func (c *CA) Digest() Digest { return DigestOf(c.Cert) }

// Digest is the SHA-256 of a CA certificate in DER form.
type Digest [sha256.Size]byte

// DigestOf returns the digest of a certificate.
func DigestOf(cert *x509.Certificate) Digest { return sha256.Sum256(cert.Raw) }

// Issue signs a certificate request. The names in the request are ignored: the caller decides who the
// node is. ips are further addresses the node is reached at. The result is leaf then CA, so that a
// joining machine that knows only the CA digest can verify the chain.
func (c *CA) Issue(rand io.Reader, now time.Time, csrPEM []byte, who Identity, ips []net.IP) ([]byte, error) {
	if err := who.Validate(); err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	if who.Cluster != c.Cluster {
		return nil, fmt.Errorf("issue certificate: cluster %q is not ours (%q)", who.Cluster, c.Cluster)
	}
	csr, err := parseCSR(csrPEM)
	if err != nil {
		return nil, fmt.Errorf("issue certificate for %s: %w", who.Name, err)
	}
	serial, err := newSerial(rand)
	if err != nil {
		return nil, err
	}
	names := []string{who.Name}
	if who.Name != "localhost" {
		names = append(names, "localhost")
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{Organization: []string{"appliance"}, CommonName: who.Name},
		NotBefore:    now.Add(-backdate),
		NotAfter:     now.Add(LeafLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:     names,
		IPAddresses:  append([]net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, ips...),
		URIs:         []*url.URL{who.URI()},
	}
	der, err := x509.CreateCertificate(rand, tmpl, c.Cert, csr.PublicKey, c.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate for %s: %w", who.Name, err)
	}
	return append(encodeCert(der), c.CertPEM()...), nil
}

func parseCSR(data []byte) (*x509.CertificateRequest, error) {
	if len(data) > maxPEM {
		return nil, fmt.Errorf("%w: %d bytes is more than %d", ErrCSR, len(data), maxPEM)
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, fmt.Errorf("%w: no PEM block CERTIFICATE REQUEST", ErrCSR)
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCSR, err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCSR, err)
	}
	return csr, nil
}

// newSerial returns 127 random bits: RFC 5280 wants a positive number of at most 20 octets.
func newSerial(rand io.Reader) (*big.Int, error) {
	var b [16]byte
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return nil, fmt.Errorf("make serial number: %w", err)
	}
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b[:]), nil
}
