package doctor

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"appliance/node/replay"
)

// Figures that come and go, looked at and kept on a board.
func TestBoardReplaysExactly(t *testing.T) {
	replay.Exactly(t, func(r *rand.Rand, say replay.Say) {
		b, now := NewBoard(), t0
		for range 100 {
			now = now.Add(time.Duration(r.IntN(12)) * time.Second)
			s := well()
			s.Now = now
			s.Disk.Free = uint64(r.IntN(20)) << 30
			s.Disk.Reserve *= uint64(r.IntN(2))
			s.Memory.Available = uint64(r.IntN(400)) * mib
			s.Clock.Ahead = time.Duration(r.IntN(int(2 * time.Second)))
			for i := range s.Nodes {
				s.Nodes[i].Alive, s.Nodes[i].Version = r.IntN(4) > 0, fmt.Sprint("v", r.IntN(3))
			}
			for i := range r.IntN(3) {
				s.Parts = append(s.Parts, Part{fmt.Sprint("part ", i), "port in use", "free it"})
				s.Links = append(s.Links, Link{From: "mm1", To: fmt.Sprint("ms", i), What: "cut"})
			}
			found := Examine(s, b.Was)
			say(found, b.Update(now, found), b.Open())
		}
	})
}
