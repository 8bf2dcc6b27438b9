package raft

import (
	"testing"
	"testing/synctest"
	"time"
)

// A first attempt that hung at a leader until that was lost is not held against those who come next.
func TestTimeAtALeaderIsNotTimeWithoutOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		led := false
		wait := leaderless{led: func() bool { return led }}
		time.Sleep(leaderWait)
		for i := range 2 {
			if wait.over() {
				t.Fatalf("given up at the first look that found nobody, round %d", i)
			}
			time.Sleep(leaderWait)
			if !wait.over() {
				t.Fatalf("goes on after %v without a leader, round %d", leaderWait, i)
			}
			led = true
			if wait.over() {
				t.Fatal("given up though somebody leads")
			}
			led = false
		}
	})
}
