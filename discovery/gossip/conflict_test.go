package gossip

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
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
