package pki

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"appliance/node/model"
)

// What can be wrong with a join token. Use errors.Is; the error text says why and what to do.
var (
	ErrTokenFormat  = errors.New("join token is malformed")
	ErrTokenUnknown = errors.New("join token is not known")
	ErrTokenSecret  = errors.New("join token is wrong")
	ErrTokenExpired = errors.New("join token has expired")
	ErrTokenUsed    = errors.New("join token was already used")
	ErrTokenRole    = errors.New("join token is for another role")
	ErrCADigest     = errors.New("CA digest does not match")
)

const (
	tokenPrefix = "APPL1"
	tokenID     = 5  // bytes; 8 characters, only has to be unique among live tokens
	tokenSecret = 20 // bytes; 160 bits cannot be guessed, and hashing it once is enough
	maxToken    = 256
)

var tokenCoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Token admits a machine to a cluster in one role. It is shown once and never stored: the state keeps
// a model.JoinToken. Its text form is APPL1-<role>-<CA digest>-<id>-<secret>.
type Token struct {
	Role   Role
	CA     Digest
	ID     string
	Secret string
}

// NewToken makes a token with a random id and secret.
func NewToken(rand io.Reader, role Role, ca Digest) (Token, error) {
	if !validRole(role) {
		return Token{}, fmt.Errorf("make join token: role %q is not known: use master or agent", role)
	}
	var b [tokenID + tokenSecret]byte
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return Token{}, fmt.Errorf("make join token: %w", err)
	}
	return Token{
		Role:   role,
		CA:     ca,
		ID:     tokenCoding.EncodeToString(b[:tokenID]),
		Secret: tokenCoding.EncodeToString(b[tokenID:]),
	}, nil
}

// String returns the full text form, secret included. Print it to the operator only.
func (t Token) String() string {
	return strings.Join([]string{tokenPrefix, string(t.Role), hex.EncodeToString(t.CA[:]), t.ID, t.Secret}, "-")
}

// LogValue keeps the secret out of logs.
func (t Token) LogValue() slog.Value { return slog.StringValue(string(t.Role) + "/" + t.ID) }

// ParseToken reads the text form. It accepts surrounding white space, for copied lines.
func ParseToken(s string) (Token, error) {
	bad := func(why string) (Token, error) {
		return Token{}, fmt.Errorf("%w: %s: copy the whole token as `appliance init` or `appliance token` printed it", ErrTokenFormat, why)
	}
	s = strings.TrimSpace(s)
	if len(s) > maxToken {
		return bad("it is too long")
	}
	parts := strings.Split(s, "-")
	if len(parts) != 5 || parts[0] != tokenPrefix {
		return bad("it is not " + tokenPrefix + "-<role>-<digest>-<id>-<secret>")
	}
	t := Token{Role: Role(parts[1]), ID: parts[3], Secret: parts[4]}
	if !validRole(t.Role) {
		return bad("its role is neither master nor agent")
	}
	digest, err := hex.DecodeString(parts[2])
	if err != nil || len(digest) != len(t.CA) || hex.EncodeToString(digest) != parts[2] {
		return bad("its CA digest is damaged")
	}
	copy(t.CA[:], digest)
	if !codedBytes(t.ID, tokenID) {
		return bad("its id is damaged")
	}
	if !codedBytes(t.Secret, tokenSecret) {
		return bad("its secret is damaged")
	}
	return t, nil
}

func codedBytes(s string, n int) bool {
	b, err := tokenCoding.DecodeString(s)
	return err == nil && len(b) == n && tokenCoding.EncodeToString(b) == s
}

// Record returns what the replicated state keeps of the token: no secret, only its hash. A zero expiry
// means never.
func (t Token) Record(now, expires time.Time, singleUse bool) model.JoinToken {
	return model.JoinToken{ID: t.ID, Role: t.Role, Hash: t.hash(), CreatedAt: now, ExpiresAt: expires, SingleUse: singleUse}
}

func (t Token) hash() []byte {
	h := sha256.Sum256([]byte(t.ID + "-" + t.Secret))
	return h[:]
}

// Check compares a presented token with the record that the state keeps under its id, nil if there is
// none. The secret is compared first and in constant time, so that someone without it learns nothing
// about the rest.
func (t Token) Check(rec *model.JoinToken, now time.Time) error {
	const again = "make a new one on a master with `appliance token`"
	switch {
	case rec == nil || rec.ID != t.ID:
		return fmt.Errorf("%w: no token has the id %s: %s", ErrTokenUnknown, t.ID, again)
	case subtle.ConstantTimeCompare(rec.Hash, t.hash()) != 1:
		return fmt.Errorf("%w: the secret of token %s does not match: copy the whole token, or %s", ErrTokenSecret, t.ID, again)
	case rec.Role != t.Role:
		return fmt.Errorf("%w: token %s admits role %s, not %s: %s", ErrTokenRole, t.ID, rec.Role, t.Role, again)
	case rec.SingleUse && rec.UsedBy != "":
		return fmt.Errorf("%w: token %s admits one machine: %s", ErrTokenUsed, t.ID, again)
	case !rec.ExpiresAt.IsZero() && !now.Before(rec.ExpiresAt):
		return fmt.Errorf("%w: token %s was valid until %s: %s", ErrTokenExpired, t.ID, rec.ExpiresAt.UTC().Format(time.RFC3339), again)
	}
	return nil
}

// VerifyCA finds in chain the CA certificate that the token pins, verifies that the leaf of chain is a
// node certificate of it at the time now, and returns it. A joining machine does this before it sends
// the token's secret.
func (t Token) VerifyCA(chain []*x509.Certificate, now time.Time) (*x509.Certificate, Identity, error) {
	for _, ca := range chain {
		if d := DigestOf(ca); subtle.ConstantTimeCompare(d[:], t.CA[:]) != 1 {
			continue
		}
		cluster, err := ClusterOf(ca)
		if err != nil {
			return nil, Identity{}, err
		}
		roots := x509.NewCertPool()
		roots.AddCert(ca)
		who, err := Verify(chain, roots, cluster, now)
		if err != nil {
			return nil, Identity{}, err
		}
		if who.Role != Master {
			return nil, Identity{}, fmt.Errorf("%s is a %s and cannot admit machines: give the address of a master", who.Name, who.Role)
		}
		return ca, who, nil
	}
	return nil, Identity{}, fmt.Errorf("%w: the machine that answered is not in the cluster that the token %s was made for: check the address and the token; if both are right, someone may be in between", ErrCADigest, t.ID)
}
