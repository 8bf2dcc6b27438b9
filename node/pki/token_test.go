package pki

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"appliance/node/model"
)

func newToken(t testing.TB, role Role, ca Digest) Token {
	t.Helper()
	tok, err := NewToken(rand.Reader, role, ca)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestTokenRoundTrip(t *testing.T) {
	tok := newToken(t, Agent, newCA(t, "c1").Digest())
	got, err := ParseToken("  " + tok.String() + "\n")
	if err != nil || got != tok {
		t.Errorf("%+v, %v", got, err)
	}
	var buf bytes.Buffer
	slog.New(slog.NewTextHandler(&buf, nil)).Info("x", "token", tok)
	if strings.Contains(buf.String(), tok.Secret) {
		t.Error("the secret is in the log")
	}
}

func TestTokenCheck(t *testing.T) {
	ca := newCA(t, "c1").Digest()
	tok := newToken(t, Agent, ca)
	end := t0.Add(time.Hour)
	wrong, promoted := tok, tok
	wrong.Secret = newToken(t, Agent, ca).Secret
	promoted.Role = Master
	rec := func(change func(*model.JoinToken)) *model.JoinToken {
		r := tok.Record(t0, end, true)
		change(&r)
		return &r
	}
	same := func(*model.JoinToken) {}
	for _, c := range []struct {
		name  string
		rec   *model.JoinToken
		token Token
		now   time.Time
		want  error
	}{
		{"good", rec(same), tok, t0, nil},
		{"no record", nil, tok, t0, ErrTokenUnknown},
		{"wrong secret", rec(same), wrong, t0, ErrTokenSecret},
		{"wrong secret, also expired", rec(same), wrong, end, ErrTokenSecret},
		{"role raised", rec(same), promoted, t0, ErrTokenRole},
		{"expired", rec(same), tok, end, ErrTokenExpired},
		{"never expires", rec(func(r *model.JoinToken) { r.ExpiresAt = time.Time{} }), tok, end, nil},
		{"used", rec(func(r *model.JoinToken) { r.UsedBy = "n" }), tok, t0, ErrTokenUsed},
		{"many uses", rec(func(r *model.JoinToken) { r.UsedBy, r.SingleUse = "n", false }), tok, t0, nil},
		{"other id", rec(func(r *model.JoinToken) { r.ID = "x" }), tok, t0, ErrTokenUnknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.token.Check(c.rec, c.now)
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), c.token.Secret) {
				t.Error("the error shows the secret")
			}
		})
	}
}

func TestTokenPinsCA(t *testing.T) {
	ca, other := newCA(t, "c1"), newCA(t, "c1")
	tok := newToken(t, Agent, ca.Digest())
	present := func(ca *CA, role Role) []*x509.Certificate {
		chain, _ := issue(t, ca, t0, Identity{Cluster: "c1", ID: "m", Name: "m", Role: role})
		leaf, err := ParseCertificate(chain)
		if err != nil {
			t.Fatal(err)
		}
		return []*x509.Certificate{leaf, ca.Cert}
	}
	if _, who, err := tok.VerifyCA(present(ca, Master), t0); err != nil || who.ID != "m" {
		t.Errorf("%+v, %v", who, err)
	}
	if _, _, err := tok.VerifyCA(present(other, Master), t0); !errors.Is(err, ErrCADigest) {
		t.Errorf("other CA: %v", err)
	}
	if _, _, err := tok.VerifyCA(present(ca, Agent), t0); err == nil {
		t.Error("an agent may not admit")
	}
	// The CA certificate is public: showing it beside a foreign leaf must not help.
	forged := []*x509.Certificate{present(other, Master)[0], ca.Cert}
	if _, _, err := tok.VerifyCA(forged, t0); err == nil {
		t.Error("foreign leaf beside the true CA accepted")
	}
}

func FuzzParseToken(f *testing.F) {
	tok, err := NewToken(rand.Reader, Master, Digest{1, 2, 3})
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{"", "APPL1", tok.String(), "APPL1-agent-00-a-b", strings.Repeat("-", 300), tok.String() + "=",
		strings.ToUpper(tok.String()), strings.Replace(tok.String(), "master", "root", 1)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseToken(s)
		if err != nil {
			if !errors.Is(err, ErrTokenFormat) {
				t.Errorf("untyped error %v", err)
			}
			return
		}
		if got.String() != strings.TrimSpace(s) {
			t.Errorf("%q is not the only form of %q", s, got.String())
		}
	})
}
