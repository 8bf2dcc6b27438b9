package wire_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"appliance/node/pki"
	"appliance/node/wire"
	"appliance/node/wire/wiretest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve starts a master that echoes on raft and nfs and tells on h2 and join who asks.
func serve(t *testing.T, c *wiretest.Cluster, id string) string {
	t.Helper()
	srv := wire.NewServer(c.Keychain(t, id, pki.Master), wiretest.Quiet())
	srv.Handle(wire.NFS, func(conn net.Conn, p wire.Peer) { io.WriteString(conn, "nfs "+p.ID) })
	ln := srv.Listener(wire.Raft)
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			p, _ := wire.PeerOf(conn)
			io.WriteString(conn, "raft "+p.ID)
			conn.Close()
		}
	}()
	tell := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, _ := wire.PeerFrom(r.Context())
		if r.URL.Path == "/hang" {
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return
		}
		io.WriteString(w, r.Proto+" "+p.ID+" "+string(p.Role))
		if p.Expired {
			io.WriteString(w, " expired")
		}
	})
	srv.HandleHTTP(tell)
	srv.HandleJoin(tell)
	return wiretest.Serve(t, srv)
}

func dialer(t *testing.T, keys *pki.Keychain) *wire.Dialer {
	t.Helper()
	d := wire.NewDialer(keys)
	t.Cleanup(d.Close)
	return d
}

func readDial(t *testing.T, d *wire.Dialer, addr, alpn string) (string, error) {
	t.Helper()
	conn, err := d.Dial(t.Context(), addr, alpn)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	b, err := io.ReadAll(conn)
	return string(b), err
}

func get(t *testing.T, c *http.Client, url string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

func TestALPNDispatchAndIdentity(t *testing.T) {
	c := wiretest.New(t)
	addr := serve(t, c, "m1")
	master, agent := dialer(t, c.Keychain(t, "m2", pki.Master)), dialer(t, c.Keychain(t, "a1", pki.Agent))
	if got, err := readDial(t, master, addr, wire.Raft); got != "raft m2" || err != nil {
		t.Errorf("raft: %q, %v", got, err)
	}
	if got, err := readDial(t, agent, addr, wire.NFS); got != "nfs a1" || err != nil {
		t.Errorf("nfs: %q, %v", got, err)
	}
	for range 2 {
		if got, err := get(t, agent.Client(), "https://"+addr+"/"); got != "HTTP/2.0 a1 agent" || err != nil {
			t.Errorf("h2: %q, %v", got, err)
		}
	}
	if got, err := readDial(t, agent, addr, wire.Raft); err == nil {
		t.Errorf("an agent speaks raft: %q", got)
	}
	if _, err := agent.Dial(t.Context(), addr, "appliance/unknown"); err == nil {
		t.Error("unknown protocol accepted")
	}
}

func TestStrangersAreRefused(t *testing.T) {
	c := wiretest.New(t)
	addr := serve(t, c, "m1")
	foreign := dialer(t, wiretest.New(t).Keychain(t, "m2", pki.Master))
	if _, err := foreign.Dial(t.Context(), addr, wire.Raft); !errors.Is(err, wire.ErrRefused) {
		t.Errorf("foreign CA: %v", err)
	}
	// Also when the stranger does not care who we are.
	for _, alpn := range []string{wire.Raft, wire.HTTP, wire.NFS, ""} {
		conf := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpn}}
		if alpn == "" {
			conf.NextProtos = nil
		}
		conn, err := tls.Dial("tcp", addr, conf)
		if err != nil {
			continue
		}
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%q without certificate: %v", alpn, err)
		}
		conn.Close()
	}
	old := dialer(t, c.KeychainAt(t, "a1", pki.Agent, time.Now().Add(-25*time.Hour)))
	if _, err := get(t, old.Client(), "https://"+addr+"/"); err == nil {
		t.Error("expired certificate accepted")
	}
}

func TestJoinOffersNothingElse(t *testing.T) {
	c := wiretest.New(t)
	addr := serve(t, c, "m1")
	// Both protocols offered and no certificate: join it is.
	conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{wire.HTTP, wire.Raft, wire.Join}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := conn.ConnectionState().NegotiatedProtocol; got != wire.Join {
		t.Errorf("negotiated %q", got)
	}
}

func TestExpectedNodeMustAnswer(t *testing.T) {
	c := wiretest.New(t)
	addr := serve(t, c, "m1")
	d := dialer(t, c.Keychain(t, "m2", pki.Master))
	want := "m1"
	d.Expect(func(a string) string {
		if a == addr {
			return want
		}
		return ""
	})
	if _, err := readDial(t, d, addr, wire.Raft); err != nil {
		t.Error(err)
	}
	want = "m9"
	if _, err := readDial(t, d, addr, wire.Raft); !errors.Is(err, wire.ErrRefused) || !strings.Contains(err.Error(), "m9 is expected") {
		t.Errorf("another node answered: %v", err)
	}
}

func TestJoinWithToken(t *testing.T) {
	c := wiretest.New(t)
	addr := serve(t, c, "m1")
	tok, err := pki.NewToken(rand.Reader, pki.Agent, c.CA.Digest())
	if err != nil {
		t.Fatal(err)
	}
	var found *x509.Certificate
	client := wire.JoinClient(&tok, nil, func(ca *x509.Certificate) { found = ca })
	got, err := get(t, client, "https://"+addr+"/")
	if err != nil || got != "HTTP/1.1  " || !found.Equal(c.CA.Cert) {
		t.Errorf("%q, %v", got, err)
	}
	other, _ := pki.NewToken(rand.Reader, pki.Agent, wiretest.New(t).CA.Digest())
	if _, err := get(t, wire.JoinClient(&other, nil, nil), "https://"+addr+"/"); !errors.Is(err, pki.ErrCADigest) {
		t.Errorf("token of another cluster: %v", err)
	}
}

func TestExpiredNodeMayOnlyRenew(t *testing.T) {
	c := wiretest.New(t)
	addr := serve(t, c, "m1")
	keys := c.KeychainAt(t, "a1", pki.Agent, time.Now().Add(-48*time.Hour))
	got, err := get(t, wire.JoinClient(nil, keys, nil), "https://"+addr+"/")
	if got != "HTTP/1.1 a1 agent expired" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	foreign := wiretest.New(t).Keychain(t, "a1", pki.Agent)
	if _, err := get(t, wire.JoinClient(nil, foreign, nil), "https://"+addr+"/"); err == nil {
		t.Error("renewal at a foreign cluster")
	}
}

// A peer that vanishes without closing (power loss, partition) must fail open requests in about a second.
func TestDeadPeerIsNoticed(t *testing.T) {
	c := wiretest.New(t)
	gate := newGate(t, serve(t, c, "m1"))
	d := dialer(t, c.Keychain(t, "a1", pki.Agent))
	req, _ := http.NewRequestWithContext(t.Context(), "GET", "https://"+gate.addr+"/hang", nil)
	resp, err := d.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	gate.freeze()
	failed := make(chan struct{})
	go func() { io.ReadAll(resp.Body); close(failed) }()
	select {
	case <-failed:
	case <-time.After(10 * time.Second): // far above the promise: only tells that it works at all
		t.Error("the dead peer was not noticed")
	}
}

func TestSlowHandshakeDoesNotBlockOthers(t *testing.T) {
	c := wiretest.New(t)
	addr := serve(t, c, "m1")
	for range 20 {
		conn, err := net.Dial("tcp", addr) // never says a word
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	d := dialer(t, c.Keychain(t, "a1", pki.Agent))
	if _, err := get(t, d.Client(), "https://"+addr+"/"); err != nil {
		t.Error(err)
	}
}
