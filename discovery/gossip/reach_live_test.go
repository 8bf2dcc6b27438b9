package gossip_test

import (
	"fmt"
	"testing"
	"time"

	"appliance/discovery/gossip"
)

func TestRowsAndBeatsTravel(t *testing.T) {
	first := start(t, "n0", "127.0.0.1", nil)
	all := []*gossip.Gossip{first}
	for i := 1; i < 4; i++ {
		all = append(all, start(t, fmt.Sprintf("n%d", i), "127.0.0.1", nil, first.Addr()))
	}
	for _, g := range all {
		until(t, g, "all four", func() bool { return alive(g) == 4 })
	}
	deadline := time.Now().Add(20 * time.Second)
	whole := func() bool {
		for i, g := range all {
			g.Beat([]string{"n0", "n1", "n2", "n3"})
			g.SetRow([]gossip.Link{{To: fmt.Sprintf("n%d", (i+1)%4), State: gossip.LinkOK}}, []gossip.Alert{{Code: uint16(i)}})
		}
		for _, g := range all {
			rows := g.Rows()
			if len(rows) != 4 || rows[3].Alerts[0].Code != 3 {
				return false
			}
			for _, r := range rows {
				if len(r.Links) != 1 || !r.Links[0].Heard {
					return false
				}
			}
		}
		return true
	}
	for !whole() {
		if time.Now().After(deadline) {
			t.Fatalf("the matrix is not whole: %+v", all[1].Rows())
		}
		time.Sleep(50 * time.Millisecond)
	}
}
