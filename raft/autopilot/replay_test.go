package autopilot

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"appliance/node/replay"
)

// Masters come, go, move and fall silent; some of the plan is carried out.
func TestPlanReplaysExactly(t *testing.T) {
	replay.Exactly(t, func(r *rand.Rand, say replay.Say) {
		now, set := start, Settings{MaxVoters: replay.One(r, 1, 3, 5), DeadAfter: 10 * time.Second}
		members, masters := parse("a b -c")
		for i := range 400 {
			now = now.Add(time.Duration(r.IntN(8)) * time.Second)
			m := &masters[r.IntN(len(masters))]
			switch r.IntN(7) {
			case 0:
				m.Alive, m.Since = !m.Alive, now
			case 1:
				m.Unfit = !m.Unfit
			case 2:
				m.CaughtUp = !m.CaughtUp
			case 3:
				m.Addr = fmt.Sprintf("%c:%d", 'a'+r.IntN(9), r.IntN(2))
			case 4:
				if len(masters) > 2 {
					masters = slices.DeleteFunc(masters, func(o Master) bool { return o.ID == m.ID })
				}
			case 5:
				id := fmt.Sprintf("m%d", i)
				if len(masters) < 9 {
					masters = append(masters, Master{ID: id, Addr: id + ":1", Alive: true, Since: now, CaughtUp: true})
				}
			}
			r.Shuffle(len(masters), func(i, j int) { masters[i], masters[j] = masters[j], masters[i] })
			r.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
			plan := Plan(members, masters, replay.One(r, members...).ID, set, now)
			say(plan)
			for _, c := range plan {
				if r.IntN(2) == 0 {
					members = carryOut(members, c)
				}
			}
		}
	})
}

func carryOut(members []Member, c Change) []Member {
	i := slices.IndexFunc(members, func(m Member) bool { return m.ID == c.ID })
	switch {
	case c.Op == Add:
		return append(members, Member{ID: c.ID, Addr: c.Addr, Runs: true})
	case c.Op == Remove:
		return slices.Delete(members, i, i+1)
	case c.Op == Readdr:
		members[i].Addr = c.Addr
	case c.Op == Promote, c.Op == Demote:
		members[i].Voter = c.Op == Promote
	}
	return members
}
