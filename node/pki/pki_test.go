package pki

import (
	"crypto/rand"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

var t0 = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func newCA(t testing.TB, cluster string) *CA {
	t.Helper()
	ca, err := NewCA(rand.Reader, t0, cluster)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func issue(t testing.TB, ca *CA, now time.Time, who Identity) (chain, key []byte) {
	t.Helper()
	req, err := NewRequest(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	chain, err = ca.Issue(rand.Reader, now, req.CSR, who, []net.IP{net.IPv4(192, 168, 56, 11)})
	if err != nil {
		t.Fatal(err)
	}
	return chain, req.Key
}

func TestLeafCarriesIdentityAndNames(t *testing.T) {
	ca := newCA(t, "c1")
	who := Identity{Cluster: "c1", ID: "n-1", Name: "ms1.example", Role: Agent}
	chain, _ := issue(t, ca, t0, who)
	leaf, err := ParseCertificate(chain)
	if err != nil {
		t.Fatal(err)
	}
	if got := leaf.URIs[0].String(); got != "appliance://c1/node/n-1?name=ms1.example&role=agent" {
		t.Errorf("uri = %s", got)
	}
	for _, name := range []string{"ms1.example", "localhost", "127.0.0.1", "192.168.56.11", "::1"} {
		if err := leaf.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	got, err := IdentityOf(leaf)
	if err != nil || got != who {
		t.Errorf("identity = %+v, %v", got, err)
	}
}

func TestVerify(t *testing.T) {
	ca, other := newCA(t, "c1"), newCA(t, "c1")
	who := Identity{Cluster: "c1", ID: "a", Name: "a", Role: Agent}
	chain, _ := issue(t, ca, t0, who)
	leaf, _ := ParseCertificate(chain)
	for _, c := range []struct {
		name    string
		ca      *CA
		cluster string
		now     time.Time
		want    string
	}{
		{"good", ca, "c1", t0.Add(time.Hour), ""},
		{"clock a little behind", ca, "c1", t0.Add(-5 * time.Minute), ""},
		{"expired", ca, "c1", t0.Add(25 * time.Hour), "check the clocks"},
		{"other CA with the same name", other, "c1", t0, "does not lead to the CA"},
		{"other cluster", ca, "c2", t0, "belongs to cluster c1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			pool := x509.NewCertPool()
			pool.AddCert(c.ca.Cert)
			_, err := Verify([]*x509.Certificate{leaf}, pool, c.cluster, c.now)
			checkErr(t, err, c.want)
		})
	}
	if _, err := Verify(nil, x509.NewCertPool(), "c1", t0); err == nil {
		t.Error("no certificate accepted")
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca.Cert)
	if _, err := Verify([]*x509.Certificate{ca.Cert}, pool, "c1", t0); !errors.Is(err, ErrIdentity) {
		t.Errorf("the CA itself passes for a node: %v", err)
	}
}

func checkErr(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("unexpected: %v", err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("error %v does not say %q", err, want)
	}
}

func TestIssueRefuses(t *testing.T) {
	ca := newCA(t, "c1")
	req, _ := NewRequest(rand.Reader)
	good := Identity{Cluster: "c1", ID: "a", Name: "a", Role: Agent}
	for _, c := range []struct {
		name string
		csr  []byte
		who  Identity
		want string
	}{
		{"garbage", []byte("x"), good, "no PEM block"},
		{"certificate instead", ca.CertPEM(), good, "no PEM block"},
		{"other cluster", req.CSR, Identity{Cluster: "c2", ID: "a", Name: "a", Role: Agent}, "not ours"},
		{"unknown role", req.CSR, Identity{Cluster: "c1", ID: "a", Name: "a", Role: "root"}, "not known"},
		{"bad name", req.CSR, Identity{Cluster: "c1", ID: "a", Name: "a b", Role: Agent}, "not valid"},
		{"bad id", req.CSR, Identity{Cluster: "c1", ID: "../a", Name: "a", Role: Agent}, "not valid"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ca.Issue(rand.Reader, t0, c.csr, c.who, nil)
			checkErr(t, err, c.want)
		})
	}
}

func TestCASurvivesStorage(t *testing.T) {
	ca := newCA(t, "c1")
	d := Dir(t.TempDir() + "/pki")
	key, err := ca.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.SaveCA(ca.CertPEM(), key); err != nil {
		t.Fatal(err)
	}
	got, err := d.LoadCA()
	if err != nil {
		t.Fatal(err)
	}
	if got.Digest() != ca.Digest() || got.Cluster != "c1" {
		t.Error("another CA came back")
	}
	info, err := os.Stat(string(d) + "/ca.key")
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("ca.key mode %v, %v", info.Mode(), err)
	}
	otherKey, _ := newCA(t, "c1").KeyPEM()
	if _, err := LoadCA(ca.CertPEM(), otherKey); err == nil {
		t.Error("foreign key accepted")
	}
}
