package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"time"
)

// Request is a fresh key and the request that asks for its certificate.
type Request struct {
	CSR []byte // PEM, goes to a master
	Key []byte // PEM, never leaves the node
}

// NewRequest makes a key pair and a certificate request for it.
func NewRequest(rand io.Reader) (Request, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand)
	if err != nil {
		return Request{}, fmt.Errorf("make node key: %w", err)
	}
	der, err := x509.CreateCertificateRequest(rand, &x509.CertificateRequest{}, key)
	if err != nil {
		return Request{}, fmt.Errorf("make certificate request: %w", err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return Request{}, err
	}
	csr := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	return Request{CSR: csr, Key: keyPEM}, nil
}

// Verify checks that chain (leaf first) leads to roots at the time now and names a node of cluster.
// Names and addresses are not checked: nodes are known by id, and their addresses change.
func Verify(chain []*x509.Certificate, roots *x509.CertPool, cluster string, now time.Time) (Identity, error) {
	if len(chain) == 0 {
		return Identity{}, errors.New("peer sent no certificate: only nodes that joined this cluster may connect")
	}
	opts := x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	if _, err := chain[0].Verify(opts); err != nil {
		var invalid x509.CertificateInvalidError
		if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
			return Identity{}, fmt.Errorf("peer certificate is not valid at %s (it runs from %s to %s): check the clocks, or let the node renew it by joining again",
				now.UTC().Format(time.RFC3339), chain[0].NotBefore.Format(time.RFC3339), chain[0].NotAfter.Format(time.RFC3339))
		}
		return Identity{}, fmt.Errorf("peer certificate does not lead to the CA of this cluster: %w: join the node with a token of this cluster", err)
	}
	who, err := IdentityOf(chain[0])
	if err != nil {
		return Identity{}, err
	}
	if who.Cluster != cluster {
		return Identity{}, fmt.Errorf("peer %s belongs to cluster %s, not to %s", who.Name, who.Cluster, cluster)
	}
	return who, nil
}

// ParseCertificate reads the first certificate of a PEM file.
func ParseCertificate(data []byte) (*x509.Certificate, error) {
	if len(data) > maxPEM {
		return nil, fmt.Errorf("certificate file of %d bytes is larger than %d", len(data), maxPEM)
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("no PEM block CERTIFICATE")
	}
	return x509.ParseCertificate(block.Bytes)
}

// keyPair joins chain and key and keeps the parsed leaf.
func keyPair(chainPEM, keyPEM []byte) (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair(chainPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("node certificate: %w", err)
	}
	if pair.Leaf == nil {
		if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return nil, fmt.Errorf("node certificate: %w", err)
		}
	}
	return &pair, nil
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func parseKey(data []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("no PEM block PRIVATE KEY")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("key of type %T cannot sign", key)
	}
	return signer, nil
}
