package gossip

import (
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
)

func TestConflictIsReportedWhenItLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &Gossip{}
		g.note("n1", "10.0.0.1:1", "10.0.0.2:1")
		if err := g.Conflict(); err != nil {
			t.Errorf("at once: %v", err)
		}
		for range 4 {
			time.Sleep(5 * time.Second)
			g.note("n1", "10.0.0.1:1", "10.0.0.2:1")
		}
		if err := g.Conflict(); err == nil || !strings.Contains(err.Error(), "10.0.0.1:1 and 10.0.0.2:1") {
			t.Errorf("after 20 s: %v", err)
		}
		time.Sleep(2 * time.Minute)
		if err := g.Conflict(); err != nil {
			t.Errorf("long after: %v", err)
		}
	})
}

// A node that moves from address to address has one conflict after the other.
func TestConflictsOfANodeThatMovesAreNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &Gossip{members: map[string]Member{}, reach: newReach("n0", size(1)), changed: make(chan struct{}), cfg: Config{Log: slog.New(slog.DiscardHandler)}}
		for _, addr := range []string{"10.0.0.2", "10.0.0.1", "10.0.0.3"} {
			for range 3 {
				g.note("n1", "10.0.0.1:1", addr+":1")
				time.Sleep(4 * time.Second)
			}
			n := &memberlist.Node{Name: "n1", Addr: net.ParseIP(addr)}
			g.put(n, false)
			g.put(n, true)
			if err := g.Conflict(); err != nil {
				t.Errorf("at %s: %v", addr, err)
			}
		}
	})
}
