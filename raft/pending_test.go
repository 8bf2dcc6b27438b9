package raft

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestPendingIsBounded(t *testing.T) {
	for _, c := range []struct {
		name string
		size int
		most int
	}{
		{"in bytes", MaxPayload, maxPendingBytes / MaxPayload},
		{"in number", 1, maxPending},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, env := newPending(), make(envelope, c.size)
				for range c.most {
					if err := p.enter(t.Context(), env); err != nil {
						t.Fatal(err)
					}
				}
				short, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if err := p.enter(short, env); !errors.Is(err, context.DeadlineExceeded) || p.len() != c.most {
					t.Fatalf("one more: %v, %d are under way", err, p.len())
				}
				entered := make(chan error, 1)
				go func() { entered <- p.enter(t.Context(), env) }()
				p.leave(env)
				if err := <-entered; err != nil || p.len() != c.most {
					t.Errorf("after one has left: %v, %d are under way", err, p.len())
				}
			})
		})
	}
}

// mute is a master that takes requests and does not answer.
type mute struct{ bytes atomic.Int64 }

func (m *mute) RoundTrip(r *http.Request) (*http.Response, error) {
	m.bytes.Add(r.ContentLength)
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// Who gives up before a proposal was sent knows that nothing was changed, and nothing of it stays.
func TestAbandonedProposalsToAMasterAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		master := &mute{}
		c := newRPCClient(&http.Client{Transport: master})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		const all = 200
		env := newEnvelope(ProposalID{}, 0, 0, make([]byte, 1<<20))
		outcomes := make(chan error, all)
		for range all {
			go func() {
				_, err := c.propose(ctx, "master:1", env, nil)
				outcomes <- err
			}()
		}
		synctest.Wait()
		if got := c.pending.len(); got >= maxPendingBytes>>20 {
			t.Errorf("%d MiB wait", got)
		}
		sent := 0
		for range all {
			var again errRetry
			if err := <-outcomes; !errors.As(err, &again) || !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			} else if again.unsure {
				sent++
			}
		}
		if q := c.queue("master:1"); len(q.waiting) != 0 || c.pending.len() != sent || int64(sent) != master.bytes.Load()>>20 || sent == 0 {
			t.Errorf("%d wait, %d are pending, %d of unknown outcome, %d bytes were sent", len(q.waiting), c.pending.len(), sent, master.bytes.Load())
		}
		time.Sleep(2 * rpcWait)
		if got := c.pending.len(); got != 0 {
			t.Errorf("%d are pending after the requests", got)
		}
		c.close()
	})
}
