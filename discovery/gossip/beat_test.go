package gossip_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"appliance/discovery/gossip"
)

// Datagrams go to members while these come back as another version and announce
// themselves anew. The race detector found that the engine writes into the nodes
// that it has handed out.
func TestBeatsReachMembersThatRestart(t *testing.T) {
	n0 := start(t, "n0", "127.0.0.1", nil)
	n1 := start(t, "n1", "127.0.0.1", nil, n0.Addr())
	port := 0
	until(t, n0, "both", func() bool {
		i := slices.IndexFunc(n0.Members(), func(m gossip.Member) bool { return m.ID == "n1" })
		if i >= 0 {
			port = n0.Members()[i].Port
		}
		return i >= 0
	})
	ctx, cancel := context.WithCancel(t.Context())
	var beats sync.WaitGroup
	beats.Go(func() {
		for ; ctx.Err() == nil; time.Sleep(10 * time.Microsecond) {
			n0.Beat([]string{"n0", "n1"})
		}
	})
	defer func() { cancel(); beats.Wait() }()
	for _, version := range []string{"2", "3", "4", "5", "6"} {
		if err := n1.Shutdown(); err != nil {
			t.Fatal(err)
		}
		n1 = start(t, "n1", "127.0.0.1", func(c *gossip.Config) { c.Port, c.Version = port, version }, n0.Addr())
		until(t, n0, "version "+version, func() bool {
			return slices.ContainsFunc(n0.Members(), func(m gossip.Member) bool { return m.ID == "n1" && m.Version == version })
		})
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			n1.SetRow([]gossip.Link{{To: "n0", State: gossip.LinkOK}}, nil)
			i := slices.IndexFunc(n1.Rows(), func(r gossip.Row) bool { return r.From == "n1" })
			if i >= 0 && n1.Rows()[i].Links[0].Heard {
				break
			}
			if time.Now().After(end) {
				t.Fatal("the restarted member hears nothing")
			}
		}
	}
}
