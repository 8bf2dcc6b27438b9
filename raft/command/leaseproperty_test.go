package command

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"appliance/node/model"
	"appliance/raft/state"
)

// The clocks differ by LeaseSkew at most and step, and what a client did without learning the outcome is
// applied whenever it likes, or never.
func TestLeaseHasOneHolderByWrongClocksAndLateAttempts(t *testing.T) {
	const ttl = 3 * time.Second
	rapid.Check(t, func(rt *rapid.T) {
		m := NewMachine(state.New())
		apply(t, m, 1, &InitCluster{Cluster: model.Cluster{ID: "c", Level: Speaks}})
		now, index := noon, uint64(1)
		do := func(c Command) Result { index++; return apply(t, m, index, c) }
		var late []Command
		belief := map[string]time.Time{} // until when a client holds it, in true time
		named := map[string]time.Time{}  // the end of the lease that it was given last
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 8).Draw(rt, "pass"))*100*time.Millisecond + 1) // no moment comes twice
			if len(late) > 0 && rapid.IntRange(0, 2).Draw(rt, "late") == 0 {
				i := rapid.IntRange(0, len(late)-1).Draw(rt, "which")
				do(late[i])
				late = append(late[:i], late[i+1:]...)
				continue
			}
			who := rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "who")
			lost := rapid.Bool().Draw(rt, "lost")
			var cmd Command
			take := !rapid.Bool().Draw(rt, "release")
			if take {
				clock := now.Add(LeaseSkew * time.Duration(rapid.IntRange(-2, 2).Draw(rt, "clock")) / 4)
				cmd = &TakeLease{Name: "vip", Holder: who, At: clock, TTL: ttl}
			} else if delete(belief, who); named[who].IsZero() {
				continue
			} else {
				cmd = &ReleaseLease{Name: "vip", Holder: who, Expires: named[who]}
			}
			if lost {
				late = append(late, cmd)
				continue
			}
			res := do(cmd)
			if !take || res.Err != nil {
				continue
			}
			var got model.Lease
			if err := res.Decode(&got); err != nil {
				rt.Fatal(err)
			}
			named[who], belief[who] = got.Expires, cmd.(*TakeLease).HeldUntil(now)
			if now.Before(belief["a"]) && now.Before(belief["b"]) {
				rt.Fatalf("two holders: a until %v, b until %v", belief["a"], belief["b"])
			}
		}
	})
}
