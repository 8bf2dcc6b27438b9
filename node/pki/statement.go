package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
)

// Sign signs a statement in the name of the cluster: only masters hold the key.
func (c *CA) Sign(statement string) ([]byte, error) {
	sum := sha256.Sum256([]byte(statement))
	return c.key.Sign(rand.Reader, sum[:], crypto.SHA256)
}

// Signed reports whether the CA signed the statement.
func Signed(ca *x509.Certificate, statement string, sig []byte) bool {
	key, ok := ca.PublicKey.(*ecdsa.PublicKey)
	sum := sha256.Sum256([]byte(statement))
	return ok && ecdsa.VerifyASN1(key, sum[:], sig)
}
