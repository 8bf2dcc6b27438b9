package command

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"appliance/node/model"
	"appliance/raft/state"
)

// The clocks differ by LeaseSkew at most and step, and what a client did without learning the outcome is
// applied whenever it likes, or never. Most draws are near what can go wrong: the holder extends, loses
// attempts and has them applied late, and the rival tries just before the holder stops to believe.
func TestLeaseHasOneHolderByWrongClocksAndLateAttempts(t *testing.T) {
	const ttl = 3 * time.Second
	moves := []string{"take", "take", "take", "lose a take", "lose a release", "late", "late", "rival", "rival", "rival", "release"}
	rapid.Check(t, func(rt *rapid.T) {
		m := NewMachine(state.New())
		apply(t, m, 1, &InitCluster{Cluster: model.Cluster{ID: "c", Level: Speaks}})
		now, index := noon, uint64(1)
		do := func(c Command) Result { index++; return apply(t, m, index, c) }
		var late []Command
		belief := map[string]time.Time{} // until when a client holds it, in true time
		named := map[string]time.Time{}  // the end of the lease that it was given last
		holder, rival := "a", "b"        // who was given it last, and who not
		take := func(who string) *TakeLease {
			clock := now.Add(LeaseSkew * time.Duration(rapid.SampledFrom([]int{-2, -2, 2, 2, -1, 0, 1}).Draw(rt, "clock")) / 4)
			return &TakeLease{Name: "vip", Holder: who, At: clock, TTL: ttl}
		}
		grant := func(who string) {
			c := take(who)
			res := do(c)
			if res.Err != nil {
				return
			}
			var got model.Lease
			if err := res.Decode(&got); err != nil {
				rt.Fatal(err)
			}
			if who == rival {
				holder, rival = rival, holder
			}
			named[who], belief[who] = got.Expires, c.HeldUntil(now)
			if now.Before(belief["a"]) && now.Before(belief["b"]) {
				rt.Fatalf("two holders: a until %v, b until %v", belief["a"], belief["b"])
			}
		}
		for range rapid.IntRange(10, 60).Draw(rt, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 3).Draw(rt, "pass"))*100*time.Millisecond + 1) // no moment comes twice
			move := rapid.SampledFrom(moves).Draw(rt, "move")
			if end := belief[holder].Add(-time.Millisecond); move == "rival" && end.After(now) && rapid.Bool().Draw(rt, "at the end") {
				now = end
			}
			switch {
			case move == "take":
				grant(holder)
			case move == "rival":
				grant(rival)
			case move == "lose a take":
				late = append(late, take(rapid.SampledFrom([]string{holder, holder, rival}).Draw(rt, "who")))
			case move == "late" && len(late) > 0:
				i := rapid.IntRange(0, len(late)-1).Draw(rt, "which")
				do(late[i])
				late = append(late[:i], late[i+1:]...)
			case !named[holder].IsZero() && move != "late":
				delete(belief, holder)
				if c := (&ReleaseLease{Name: "vip", Holder: holder, Expires: named[holder]}); move == "release" {
					do(c)
				} else {
					late = append(late, c)
					grant(holder) // it wants the lease again at once
				}
			}
		}
	})
}
