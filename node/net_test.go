package node

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"appliance/discovery/gossip"
	"appliance/node/wire"
)

// A link that breaks is told after two lost probes, one that mends after two
// answered ones, and a node that is asked in vain delays nothing.
func TestLinksAreFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		l := &links{
			targets: func() []target { return []target{{"m1", "a:1"}, {"m2", "b:1"}} },
			every:   func() time.Duration { return time.Second },
			beat:    func([]string) {},
			publish: func([]gossip.Link) {},
			ping: func(ctx context.Context, to target) (pong, error) {
				if to.id == "m2" && down.Load() {
					<-ctx.Done()
					return pong{}, ctx.Err()
				}
				time.Sleep(2 * time.Millisecond)
				return pong{ID: to.id, Now: time.Now().Add(-time.Millisecond + 3*time.Second)}, nil
			},
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = l.Run(ctx) }()
		changes := ""
		look := func(seconds int) {
			for range seconds {
				time.Sleep(time.Second)
				row := l.current()
				changes += map[bool]string{true: "+", false: "-"}[row[1].State == gossip.LinkOK]
				if row[0].State != gossip.LinkOK {
					t.Fatalf("m1 is %v", row[0].State)
				}
			}
		}
		time.Sleep(500 * time.Millisecond) // between the rounds
		look(3)
		down.Store(true)
		look(4)
		down.Store(false)
		look(4)
		if changes != "+++++---+++" {
			t.Errorf("m2 was %s", changes)
		}
		if m1 := l.current()[0]; m1.Offset != 3*time.Second || m1.RTT != 2*time.Millisecond {
			t.Errorf("offset %v, round trip %v", m1.Offset, m1.RTT)
		}
		cancel()
		<-done
	})
}

func TestWhyALinkFails(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		want gossip.LinkState
	}{
		{"nothing listens", fmt.Errorf("connect: %w", syscall.ECONNREFUSED), gossip.LinkRefused},
		{"another node", fmt.Errorf("dial: %w", wire.ErrRefused), gossip.LinkDenied},
		{"no answer", context.DeadlineExceeded, gossip.LinkSilent},
		{"anything else", errors.New("x"), gossip.LinkSilent},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := linkState(c.err); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// The address of a node may be somebody else's by now.
func TestAnotherNodesAnswerIsNoLink(t *testing.T) {
	l := &links{ping: func(context.Context, target) (pong, error) { return pong{ID: "other", Now: time.Now()}, nil }}
	if p := l.probe(t.Context(), target{"m1", "a:1"}); p.State != gossip.LinkDenied {
		t.Errorf("state %v", p.State)
	}
}
