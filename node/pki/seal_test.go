package pki

import (
	"bytes"
	"crypto/rand"
	"errors"
	"testing"
)

func sealKey(t testing.TB) SealKey {
	t.Helper()
	k, err := NewSealKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSeal(t *testing.T) {
	key, other := sealKey(t), sealKey(t)
	plain := []byte("correct horse battery staple")
	sealed, err := key.Seal(rand.Reader, "test/db", 3, plain)
	if err != nil || bytes.Contains(sealed.Value, plain[:8]) || bytes.Contains(sealed.Wrapped, plain[:8]) {
		t.Fatalf("%v", err)
	}
	again, err := key.Seal(rand.Reader, "test/db", 3, plain)
	if err != nil || bytes.Equal(again.Value, sealed.Value) {
		t.Error("the same value looks the same: others see that two secrets are equal")
	}
	flip := func(b []byte) []byte { c := bytes.Clone(b); c[len(c)-1] ^= 1; return c }
	rewrapped, err := key.Rewrap(rand.Reader, other, "test/db", 3, sealed.Wrapped)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name    string
		key     SealKey
		secret  string
		version uint64
		sealed  Sealed
		ok      bool
	}{
		{"itself", key, "test/db", 3, sealed, true},
		{"under another key", other, "test/db", 3, Sealed{sealed.Value, rewrapped}, true},
		{"wrong key", other, "test/db", 3, sealed, false},
		{"old key after rewrap", key, "test/db", 3, Sealed{sealed.Value, rewrapped}, false},
		{"put in the place of another secret", key, "production/db", 3, sealed, false},
		{"an old version in the place of a new one", key, "test/db", 4, sealed, false},
		{"value of another envelope", key, "test/db", 3, Sealed{again.Value, sealed.Wrapped}, false},
		{"parts swapped", key, "test/db", 3, Sealed{sealed.Wrapped, sealed.Value}, false},
		{"flipped bit in the value", key, "test/db", 3, Sealed{flip(sealed.Value), sealed.Wrapped}, false},
		{"flipped bit in the key", key, "test/db", 3, Sealed{sealed.Value, flip(sealed.Wrapped)}, false},
		{"cut", key, "test/db", 3, Sealed{sealed.Value[:5], sealed.Wrapped}, false},
		{"nothing", key, "test/db", 3, Sealed{}, false},
	} {
		got, err := tc.key.Open(tc.secret, tc.version, tc.sealed)
		if tc.ok && (err != nil || !bytes.Equal(got, plain)) || !tc.ok && !errors.Is(err, ErrSeal) {
			t.Errorf("%s: %q, %v", tc.name, got, err)
		}
	}
	if len(key.ID()) != len("seal-")+16 || key.ID() == other.ID() {
		t.Errorf("ids %s and %s", key.ID(), other.ID())
	}
}

func FuzzOpen(f *testing.F) {
	key := sealKey(f)
	good, err := key.Seal(rand.Reader, "n", 1, []byte("v"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good.Value, good.Wrapped)
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, value, wrapped []byte) {
		_, err := key.Open("n", 1, Sealed{value, wrapped})
		if err == nil && (!bytes.Equal(value, good.Value) || !bytes.Equal(wrapped, good.Wrapped)) {
			t.Error("something else than what was sealed opens")
		}
	})
}

func FuzzParseBundle(f *testing.F) {
	ca := newCA(f, "c1")
	f.Add(ca.CertPEM())
	f.Add(append(ca.CertPEM(), newCA(f, "c1").CertPEM()...))
	f.Add(append(ca.CertPEM(), newCA(f, "c2").CertPEM()...))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		certs, err := ParseBundle(data)
		if err != nil {
			return
		}
		if again, err := ParseBundle(Bundle(certs)); err != nil || len(again) != len(certs) {
			t.Errorf("%d certificates became %d: %v", len(certs), len(again), err)
		}
	})
}

func TestKeychainOfTwoCAs(t *testing.T) {
	old, next := newCA(t, "c1"), newCA(t, "c1")
	who := Identity{Cluster: "c1", ID: "n1", Name: "n1", Role: Agent}
	chain, key := issue(t, old, t0, who)
	k, err := NewKeychain(old.CertPEM(), chain, key, t0)
	if err != nil {
		t.Fatal(err)
	}
	nextChain, nextKey := issue(t, next, t0, who)
	if err := k.Swap(nextChain, nextKey, t0, nil); err == nil {
		t.Error("a certificate of a CA that is not believed was taken")
	}
	both := append(next.CertPEM(), old.CertPEM()...)
	if err := k.Trust(next.CertPEM(), nil); err == nil {
		t.Error("the CA of the own certificate was dropped")
	}
	if err := k.Trust(append(newCA(t, "c2").CertPEM(), old.CertPEM()...), nil); err == nil {
		t.Error("a CA of another cluster was taken")
	}
	if err := k.Trust(both, nil); err != nil {
		t.Fatal(err)
	}
	if err := k.Swap(nextChain, nextKey, t0, nil); err != nil {
		t.Fatal(err)
	}
	if DigestOf(k.CA()) != next.Digest() || !bytes.Equal(k.Leaf().Certificate[1], next.Cert.Raw) {
		t.Error("the chain does not end in the CA that has signed")
	}
	if err := k.Trust(next.CertPEM(), nil); err != nil || len(k.CAs()) != 1 {
		t.Errorf("the old CA stays: %v", err)
	}
}

func TestVault(t *testing.T) {
	d, ca, next := Dir(t.TempDir()), newCA(t, "c1"), newCA(t, "c1")
	first, _ := ca.KeyPEM()
	if err := d.SaveCA(ca.CertPEM(), first); err != nil {
		t.Fatal(err)
	}
	other, _ := next.KeyPEM()
	if err := d.SaveKey(next.Digest().String(), other); err != nil {
		t.Fatal(err)
	}
	ids, err := d.KeyIDs()
	if err != nil || len(ids) != 2 {
		t.Fatalf("%v: %v", ids, err)
	}
	if err := d.SaveBundle(append(next.CertPEM(), ca.CertPEM()...)); err != nil {
		t.Fatal(err)
	}
	if got, err := d.LoadCA(); err != nil || got.Digest() != next.Digest() {
		t.Errorf("the signing CA is %v: %v", got, err)
	}
	if _, err := d.LoadAuthority(ca.Cert); err != nil {
		t.Errorf("the first CA: %v", err)
	}
	if err := d.SaveBundle(next.CertPEM()); err != nil {
		t.Fatal(err)
	}
	if err := d.RemoveOldCAKey(); err != nil {
		t.Fatal(err)
	}
	if ids, _ := d.KeyIDs(); len(ids) != 1 || ids[0] != next.Digest().String() {
		t.Errorf("left are %v", ids)
	}
	for _, id := range []string{"../x", "", "a/b"} {
		if err := d.SaveKey(id, other); err == nil {
			t.Errorf("a key was saved as %q", id)
		}
	}
}
