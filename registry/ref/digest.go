// Package ref parses the names that registry clients send: digests,
// repository names, tags, image references and upload ranges. The grammar is
// the one of the OCI distribution and image specifications 1.1. It is pure:
// what parses is safe to use as a path element or map key.
package ref

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strings"
)

// ErrDigest marks text that is not a digest this registry supports.
var ErrDigest = errors.New("invalid digest")

// Digest is a content address, "sha256:<64 hex>" or "sha512:<128 hex>". A
// value made by ParseDigest, FromBytes or FromHash is always well-formed.
type Digest string

// Names of the supported hash algorithms.
const (
	SHA256 = "sha256"
	SHA512 = "sha512"
)

var hexLength = map[string]int{SHA256: 64, SHA512: 128}

// ParseDigest accepts lower-case sha256 and sha512 digests and nothing else.
func ParseDigest(s string) (Digest, error) {
	algorithm, encoded, _ := strings.Cut(s, ":")
	want, ok := hexLength[algorithm]
	if !ok {
		return "", fmt.Errorf("%w %q: want sha256:<64 hex> or sha512:<128 hex>", ErrDigest, clip(s))
	}
	if len(encoded) != want || strings.Trim(encoded, "0123456789abcdef") != "" {
		return "", fmt.Errorf("%w %q: want %d lower-case hex digits after %s:", ErrDigest, clip(s), want, algorithm)
	}
	return Digest(s), nil
}

// Algorithm returns the part before the colon.
func (d Digest) Algorithm() string { a, _, _ := strings.Cut(string(d), ":"); return a }

// Hex returns the part after the colon.
func (d Digest) Hex() string { _, h, _ := strings.Cut(string(d), ":"); return h }

// Hash returns a new hash of the digest's algorithm.
func (d Digest) Hash() hash.Hash {
	if d.Algorithm() == SHA512 {
		return sha512.New()
	}
	return sha256.New()
}

// FromBytes returns the sha256 digest of b.
func FromBytes(b []byte) Digest {
	sum := sha256.Sum256(b)
	return Digest(SHA256 + ":" + hex.EncodeToString(sum[:]))
}

// FromHash returns the digest of what was written to h, which must be a
// SHA-256 or SHA-512 hash.
func FromHash(h hash.Hash) Digest {
	algorithm := SHA256
	if h.Size() == sha512.Size {
		algorithm = SHA512
	}
	return Digest(algorithm + ":" + hex.EncodeToString(h.Sum(nil)))
}

// clip keeps error messages short when a client sends a page of text.
func clip(s string) string {
	const most = 160
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
