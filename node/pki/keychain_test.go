package pki

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func keychain(t testing.TB, ca *CA, now time.Time, who Identity) *Keychain {
	t.Helper()
	chain, key := issue(t, ca, now, who)
	k, err := NewKeychain(ca.CertPEM(), chain, key, now)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var agentA = Identity{Cluster: "c1", ID: "a", Name: "a", Role: Agent}

func TestKeychainRefusesForeignPairs(t *testing.T) {
	ca := newCA(t, "c1")
	k := keychain(t, ca, t0, agentA)
	before := k.Leaf()
	chain, key := issue(t, newCA(t, "c1"), t0, agentA)
	if err := k.Swap(chain, key, t0, nil); err == nil {
		t.Error("leaf of another CA accepted")
	}
	raised := agentA
	raised.Role = Master
	chain, key = issue(t, ca, t0, raised)
	if err := k.Swap(chain, key, t0, nil); err == nil {
		t.Error("another role accepted")
	}
	_, key2 := issue(t, ca, t0, agentA)
	if err := k.Swap(chain, key2, t0, nil); err == nil {
		t.Error("key of another certificate accepted")
	}
	if k.Leaf() != before {
		t.Error("a refused pair changed the keychain")
	}
}

func TestKeychainLoadsExpiredLeafFromDisk(t *testing.T) {
	ca := newCA(t, "c1")
	d := Dir(t.TempDir())
	if _, err := d.Keychain(t0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("empty directory: %v", err)
	}
	if err := d.SaveCA(ca.CertPEM(), nil); err != nil {
		t.Fatal(err)
	}
	chain, key := issue(t, ca, t0, agentA)
	if err := d.SaveNode(chain, key); err != nil {
		t.Fatal(err)
	}
	late := t0.Add(72 * time.Hour)
	k, err := d.Keychain(late)
	if err != nil {
		t.Fatal(err)
	}
	if !k.Expired(late) || k.Expired(t0) || k.Identity() != agentA {
		t.Error("wrong view of the loaded leaf")
	}
	if _, err := d.LoadCA(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an agent has a CA key: %v", err)
	}
}

func TestKeychainRenewsAtHalfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, err := NewCA(rand.Reader, time.Now(), "c1")
		if err != nil {
			t.Fatal(err)
		}
		k := keychain(t, ca, time.Now(), agentA)
		var asked, saved atomic.Int32
		sign := func(_ context.Context, csr []byte) ([]byte, error) {
			if asked.Add(1) <= 3 {
				return nil, errors.New("no master answers")
			}
			return ca.Issue(rand.Reader, time.Now(), csr, agentA, nil)
		}
		save := func(_, _ []byte) error { saved.Add(1); return nil }
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- k.Run(ctx, slog.New(slog.DiscardHandler), sign, save) }()
		time.Sleep(11 * time.Hour)
		if asked.Load() != 0 {
			t.Error("renewed too early")
		}
		first := k.Leaf().Leaf.NotAfter
		time.Sleep(2 * time.Hour)
		if asked.Load() != 4 || saved.Load() != 1 || !k.Leaf().Leaf.NotAfter.After(first) {
			t.Errorf("asked %d, saved %d", asked.Load(), saved.Load())
		}
		time.Sleep(10 * 24 * time.Hour)
		if k.Expired(time.Now()) {
			t.Error("expired while masters answered")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A node whose masters were away for days must not wait long for its certificate once they are back,
// and must not fill its log meanwhile.
func TestKeychainRenewsSoonAfterItRanOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, err := NewCA(rand.Reader, time.Now(), "c1")
		if err != nil {
			t.Fatal(err)
		}
		k := keychain(t, ca, time.Now(), agentA)
		var back atomic.Bool
		sign := func(_ context.Context, csr []byte) ([]byte, error) {
			if !back.Load() {
				return nil, errors.New("no master answers")
			}
			return ca.Issue(rand.Reader, time.Now(), csr, agentA, nil)
		}
		var log bytes.Buffer
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- k.Run(ctx, slog.New(slog.NewTextHandler(&log, nil)), sign, nil) }()
		time.Sleep(49 * time.Hour)
		if !k.Expired(time.Now()) {
			t.Fatal("the test proves nothing")
		}
		back.Store(true)
		time.Sleep(urgentRetry)
		synctest.Wait()
		if k.Expired(time.Now()) {
			t.Errorf("still not renewed %s after the masters came back", urgentRetry)
		}
		cancel()
		<-done
		if n := strings.Count(log.String(), "not renewed"); n != 1 {
			t.Errorf("said %d times in a day", n)
		}
	})
}

// CAs that come while a certificate is being saved must not leave two on the disk that do not belong together:
// the node would never start again.
func TestCAsAndCertificateChangeOneByOne(t *testing.T) {
	old, next := newCA(t, "c1"), newCA(t, "c1")
	k := keychain(t, old, t0, agentA)
	if err := k.Trust(append(old.CertPEM(), next.CertPEM()...), nil); err != nil {
		t.Fatal(err)
	}
	dropped := make(chan error, 1)
	chain, key := issue(t, next, t0, agentA)
	if err := k.Swap(chain, key, t0, func(_, _ []byte) error {
		go func() { dropped <- k.Trust(old.CertPEM(), nil) }()
		select {
		case err := <-dropped:
			t.Errorf("the CA of the certificate that is being saved was dropped: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := <-dropped; err == nil {
		t.Error("the CA of the certificate was dropped")
	}
}
