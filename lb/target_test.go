package lb

import (
	"sync/atomic"
	"testing"
	"time"
)

func testPool(n int) *pool {
	p := &pool{next: new(atomic.Uint64)}
	for range n {
		p.targets = append(p.targets, &target{})
		p.weights = append(p.weights, 1)
	}
	p.schedule = schedule(p.weights)
	return p
}

func firstOf(int) int { return 0 }

func TestEjectionReturnsExponentially(t *testing.T) {
	tg := &target{}
	now := time.Unix(1000, 0)
	for _, hold := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		if tg.fault(now); tg.available(now.Add(hold*time.Second - 1)) {
			t.Fatalf("back before %v s", hold)
		}
		if tg.fault(now) {
			t.Fatal("a second fault in the same hold is news")
		}
		now = now.Add(hold * time.Second)
		if !tg.available(now) {
			t.Fatalf("not back after %v s", hold)
		}
		if tg.available(now) {
			t.Fatal("two trials at once")
		}
	}
	if !tg.healthy() || !tg.available(now) || tg.healthy() {
		t.Error("an answer must end the ejection, once")
	}
}

func TestDoubtNeverEmptiesASet(t *testing.T) {
	p, now := testPool(2), time.Unix(1000, 0)
	p.targets[0].fault(now)
	for range 4 {
		if p.pick(nil, now, firstOf) != p.targets[1] {
			t.Fatal("an ejected target was picked before a good one")
		}
	}
	p.targets[1].fault(now.Add(time.Millisecond))
	if p.pick(nil, now.Add(time.Millisecond), firstOf) != p.targets[0] {
		t.Error("of ejected targets the one due back first must be picked")
	}
}

func TestLoadedTargetIsAvoided(t *testing.T) {
	p := testPool(2)
	p.targets[1].inflight.Store(5)
	for range 4 {
		if p.pick(nil, time.Unix(0, 0), firstOf) != p.targets[0] {
			t.Fatal("the loaded one was picked")
		}
	}
}
