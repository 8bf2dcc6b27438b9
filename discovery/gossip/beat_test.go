package gossip_test

import (
	"context"
	"net"
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

// A node that is not heard takes the others for dead. They hear its datagrams all
// the same, and can only say so if it goes on sending them.
func TestBeatsGoToTheDeadToo(t *testing.T) {
	n0 := start(t, "n0", "127.0.0.1", nil)
	n1 := start(t, "n1", "127.0.0.1", nil, n0.Addr())
	until(t, n0, "both", func() bool { return alive(n0) == 2 })
	i := slices.IndexFunc(n0.Members(), func(m gossip.Member) bool { return m.ID == "n1" })
	dead := n0.Members()[i]
	if err := n1.Shutdown(); err != nil {
		t.Fatal(err)
	}
	until(t, n0, "the death", func() bool { return alive(n0) == 1 })
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(dead.Addr), Port: dead.Port})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	got := func(within time.Duration) bool {
		_ = conn.SetReadDeadline(time.Now().Add(within))
		_, err := conn.Read(make([]byte, 2048))
		return err == nil
	}
	for end := time.Now().Add(20 * time.Second); got(time.Second); { // what the engine still has to tell
		if time.Now().After(end) {
			t.Fatal("it is never quiet")
		}
	}
	n0.Beat([]string{"n0", "n1"})
	if !got(5 * time.Second) {
		t.Error("no datagram came")
	}
}
