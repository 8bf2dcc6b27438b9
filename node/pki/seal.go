package pki

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// ErrSeal says that a sealed value cannot be opened: another key, or damage.
var ErrSeal = errors.New("sealed value cannot be opened")

// SealKey seals the keys of secrets. Masters hold it in files; it is in no log.
type SealKey [32]byte

// NewSealKey makes a key for AES-256-GCM.
func NewSealKey(rand io.Reader) (SealKey, error) {
	var k SealKey
	if _, err := io.ReadFull(rand, k[:]); err != nil {
		return k, fmt.Errorf("make seal key: %w", err)
	}
	return k, nil
}

// ID names the key without telling anything of it.
func (k SealKey) ID() string { return keyID("seal", k[:]) }

// GossipKeyID names a gossip key without telling anything of it.
func GossipKeyID(key []byte) string { return keyID("gossip", key) }

// keyID cuts the hash to 64 bits, enough to tell a handful of keys apart.
func keyID(kind string, key []byte) string {
	sum := sha256.Sum256(append([]byte("appliance "+kind+" key id\x00"), key...))
	return kind + "-" + hex.EncodeToString(sum[:8])
}

// Sealed is a value in its envelope (NIST SP 800-38D): Value is sealed with a
// key of its own, Wrapped is that key sealed with a SealKey. Both are bound to
// the name and version, so that none can be put in another's place.
type Sealed struct{ Value, Wrapped []byte }

// Seal puts a value into an envelope.
func (k SealKey) Seal(rand io.Reader, name string, version uint64, value []byte) (Sealed, error) {
	own, err := NewSealKey(rand)
	if err != nil {
		return Sealed{}, err
	}
	bound := binding(name, version)
	sealed, err := encrypt(rand, own[:], value, append(bound, " value"...))
	if err != nil {
		return Sealed{}, err
	}
	wrapped, err := encrypt(rand, k[:], own[:], append(bound, " key"...))
	return Sealed{Value: sealed, Wrapped: wrapped}, err
}

// Open takes the value out.
func (k SealKey) Open(name string, version uint64, s Sealed) ([]byte, error) {
	bound := binding(name, version)
	own, err := decrypt(k[:], s.Wrapped, append(bound, " key"...))
	if err != nil {
		return nil, err
	}
	return decrypt(own, s.Value, append(bound, " value"...))
}

// Rewrap puts the envelope's key under another seal key. The value is not
// opened for it.
func (k SealKey) Rewrap(rand io.Reader, to SealKey, name string, version uint64, wrapped []byte) ([]byte, error) {
	bound := append(binding(name, version), " key"...)
	own, err := decrypt(k[:], wrapped, bound)
	if err != nil {
		return nil, err
	}
	return encrypt(rand, to[:], own, bound)
}

// binding has no two meanings: names have no zero byte. Its capacity is its
// length, so that what is appended is never shared.
func binding(name string, version uint64) []byte {
	b := []byte("appliance secret\x00" + name + "\x00" + strconv.FormatUint(version, 10))
	return b[:len(b):len(b)]
}

// encrypt returns a random nonce and the ciphertext. Each value has a key of
// its own and a seal key wraps few thousands, so random nonces do not repeat.
func encrypt(rand io.Reader, key, plain, bound []byte) ([]byte, error) {
	gcm, err := newGCM(key)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, gcm.NonceSize(), gcm.NonceSize()+len(plain)+gcm.Overhead())
	if _, err := io.ReadFull(rand, nonce); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return gcm.Seal(nonce, nonce, plain, bound), nil
}

func decrypt(key, sealed, bound []byte) ([]byte, error) {
	gcm, err := newGCM(key)
	if err != nil {
		return nil, err
	}
	if len(sealed) < gcm.NonceSize() {
		return nil, ErrSeal
	}
	plain, err := gcm.Open(nil, sealed[:gcm.NonceSize()], sealed[gcm.NonceSize():], bound)
	if err != nil {
		return nil, ErrSeal // the library's text says no more
	}
	return plain, nil
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSeal, err)
	}
	return cipher.NewGCM(block)
}
