package gossip

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Every row that is put is sent as often as it should be, in its newest
// version, and no datagram is too long, whatever comes between.
func TestQueueSendsEveryRow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const overhead, size = 3, 12 // 6 times
		var q rowQueue
		newest, sent := map[string]uint64{}, map[string]int{}
		take := func(limit int) {
			for _, msg := range q.take(overhead, limit, size) {
				if limit -= overhead + len(msg); limit < 0 {
					t.Fatalf("%d bytes too many", -limit)
				}
				row, err := decodeRow(msg[1:], time.Now())
				if err != nil || row.Version != newest[row.From] {
					t.Fatalf("sent %+v, the newest version is %d: %v", row, newest[row.From], err)
				}
				sent[row.From]++
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				row := Row{From: fmt.Sprint("n", rapid.IntRange(0, 9).Draw(t, "node")), At: time.Now(), Version: uint64(rapid.IntRange(1, 100).Draw(t, "version"))}
				for range rapid.IntRange(0, 20).Draw(t, "links") {
					row.Links = append(row.Links, Link{To: fmt.Sprint("n", len(row.Links)), State: LinkOK})
				}
				if at, waits := newest[row.From]; !waits || sent[row.From] == 6 || row.Version > at {
					newest[row.From], sent[row.From] = row.Version, 0
				}
				q.put(row)
			},
			"take": func(t *rapid.T) { take(rapid.IntRange(0, 1400).Draw(t, "limit")) },
		})
		for range 6 * 10 {
			take(1400)
		}
		for id := range newest {
			if sent[id] != 6 {
				t.Errorf("the row of %s was sent %d times, not 6", id, sent[id])
			}
		}
	})
}
