// Package pki is the identity of a cluster: its certificate authority, the short-lived leaf
// certificates of its nodes, the join tokens that admit a machine, and the keys of gossip and secrets.
//
// The functions take the clock and randomness as arguments; only Dir and Keychain.Run touch files
// and time. The keys of CAs and secrets exist on masters only.
package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"appliance/node/model"
)

// Role is what a certificate or token allows a machine to be.
type Role = model.Role

// The two roles. A master is also allowed everything an agent is.
const (
	Master = model.RoleMaster
	Agent  = model.RoleAgent
)

func validRole(r Role) bool { return r == Master || r == Agent }

// ErrIdentity says that a certificate carries no identity of this cluster.
var ErrIdentity = errors.New("certificate carries no node identity")

// Identity is who a node is. It is carried by the leaf certificate as the URI SAN
// appliance://<cluster>/node/<id>?name=<name>&role=<role>.
type Identity struct {
	Cluster string // random cluster id, fixed at init
	ID      string // stable node id from the data directory
	Name    string // host name, unique in the cluster
	Role    Role
}

const scheme = "appliance"

// URI returns the identity in the form that a certificate carries.
func (i Identity) URI() *url.URL {
	q := url.Values{"role": {string(i.Role)}, "name": {i.Name}}
	return &url.URL{Scheme: scheme, Host: i.Cluster, Path: "/node/" + i.ID, RawQuery: q.Encode()}
}

// Validate says what is wrong with the identity, or nil.
func (i Identity) Validate() error {
	switch {
	case !validLabel(i.Cluster):
		return fmt.Errorf("cluster id %q is not valid: use 1 to 63 letters, digits or '-'", i.Cluster)
	case !validLabel(i.ID):
		return fmt.Errorf("node id %q is not valid: use 1 to 63 letters, digits or '-'", i.ID)
	case !validName(i.Name):
		return fmt.Errorf("node name %q is not valid: use a host name of letters, digits, '-' and '.'", i.Name)
	case !validRole(i.Role):
		return fmt.Errorf("role %q is not known: use master or agent", i.Role)
	}
	return nil
}

// IdentityOf reads the identity from a leaf certificate. It does not verify the chain.
func IdentityOf(cert *x509.Certificate) (Identity, error) {
	if cert == nil || len(cert.URIs) != 1 {
		return Identity{}, ErrIdentity
	}
	u := cert.URIs[0]
	id, ok := strings.CutPrefix(u.Path, "/node/")
	if u.Scheme != scheme || !ok {
		return Identity{}, ErrIdentity
	}
	q := u.Query()
	i := Identity{Cluster: u.Host, ID: id, Name: q.Get("name"), Role: Role(q.Get("role"))}
	if err := i.Validate(); err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	return i, nil
}

// validLabel accepts a DNS label (RFC 1123), either case.
func validLabel(s string) bool {
	if len(s) == 0 || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return true
}

func validName(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if !validLabel(label) {
			return false
		}
	}
	return true
}

// GossipKeyBytes selects AES-256 in memberlist.
const GossipKeyBytes = 32

// NewGossipKey makes the key that encrypts gossip; it is handed over at join.
func NewGossipKey(rand io.Reader) ([]byte, error) {
	key := make([]byte, GossipKeyBytes)
	if _, err := io.ReadFull(rand, key); err != nil {
		return nil, fmt.Errorf("make gossip key: %w", err)
	}
	return key, nil
}
