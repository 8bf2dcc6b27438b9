package pki

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"appliance/raft/durable"
)

// Dir keeps the identity of a node on disk: ca.crt (all CAs that it believes, the signing one first),
// node.pem (chain and key in one file, so that a crash never leaves a mixed pair), gossip.key (all
// gossip keys, the sending one first), and on masters only ca.key and keys/. Files are 0600, replaced
// atomically and synced.
type Dir string

const (
	fileCA     = "ca.crt"
	fileCAKey  = "ca.key"
	fileNode   = "node.pem"
	fileGossip = "gossip.key"
)

// Exists reports whether the directory holds a node certificate.
func (d Dir) Exists() bool {
	_, err := os.Stat(filepath.Join(string(d), fileNode))
	return err == nil
}

// SaveCA stores the CA certificate and, on a master, its key (nil on an agent).
func (d Dir) SaveCA(certPEM, keyPEM []byte) error {
	if keyPEM != nil {
		if err := d.write(fileCAKey, keyPEM); err != nil {
			return err
		}
	}
	return d.write(fileCA, certPEM)
}

// LoadCA reads the signing CA with its key. It fails with fs.ErrNotExist on an agent.
func (d Dir) LoadCA() (*CA, error) {
	certs, err := d.believed()
	if err != nil {
		return nil, err
	}
	return d.LoadAuthority(certs[0])
}

// believed are the CAs in ca.crt, at least one.
func (d Dir) believed() ([]*x509.Certificate, error) {
	bundle, err := d.read(fileCA)
	if err != nil {
		return nil, err
	}
	return ParseBundle(bundle)
}

// SaveNode stores the node certificate chain and key.
func (d Dir) SaveNode(chainPEM, keyPEM []byte) error {
	return d.write(fileNode, append(bytes.Clone(keyPEM), chainPEM...))
}

// Keychain loads the node certificate and the CA certificate.
func (d Dir) Keychain(now time.Time) (*Keychain, error) {
	ca, err := d.read(fileCA)
	if err != nil {
		return nil, err
	}
	load := func(node []byte) (*Keychain, error) {
		block, chain := pem.Decode(node)
		if block == nil {
			return nil, fmt.Errorf("%s is damaged: join this node again", filepath.Join(string(d), fileNode))
		}
		return NewKeychain(ca, chain, pem.EncodeToMemory(block), now)
	}
	// Older versions renew it without the copy; key and signatures tell damage.
	node, err := d.readKeeping(fileNode, func(node []byte) bool { _, err := load(node); return err == nil })
	if err != nil {
		return nil, err
	}
	return load(node)
}

// dirCopies holds a second copy of each file, by which damage is found and repaired.
const dirCopies = "copies"

func (d Dir) paths(name string) (path, second, aside string) {
	return filepath.Join(string(d), name), filepath.Join(string(d), dirCopies, name), filepath.Join(string(d), "damaged")
}

func (d Dir) read(name string) ([]byte, error) { return d.readKeeping(name, nil) }

// readKeeping is read; a file that was changed without its copy counts if keep accepts it.
func (d Dir) readKeeping(name string, keep func([]byte) bool) ([]byte, error) {
	path, second, aside := d.paths(name)
	data, err := durable.ReadTwice(path, second, aside, keep)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("this node has no %s: run `appliance init` or `appliance join` first: %w", name, err)
	}
	return data, err
}

func (d Dir) write(name string, data []byte) error {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return err
	}
	path, second, _ := d.paths(name)
	if err := durable.WriteTwice(path, second, data); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func (d Dir) remove(name string) error {
	path, second, _ := d.paths(name)
	return durable.RemoveTwice(path, second)
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
