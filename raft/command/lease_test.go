package command

import (
	"testing"
	"time"

	"appliance/node/model"
	"appliance/raft/state"
)

// An attempt whose outcome the holder never learned may be applied after its next one.
func TestLateAttemptsDoNotEndALease(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	take := func(who string, s int) *TakeLease {
		return &TakeLease{Name: "vip", Holder: who, At: at(s), TTL: 3 * time.Second}
	}
	for name, late := range map[string]Command{
		"take":    take("a", 0),
		"release": &ReleaseLease{Name: "vip", Holder: "a", Expires: at(3)},
	} {
		t.Run(name, func(t *testing.T) {
			store := state.New()
			m := NewMachine(store)
			apply(t, m, 1, take("a", 2)) // until 5
			apply(t, m, 2, late)
			if res := apply(t, m, 3, take("b", 4)); res.Err == nil || res.Err.Code != model.CodeConflict {
				t.Errorf("a second holder: %s", res.Value)
			}
			apply(t, m, 4, &ReleaseLease{Name: "vip", Holder: "a", Expires: at(5)})
			if res := apply(t, m, 5, take("b", 4)); res.Err != nil {
				t.Errorf("not free after its release: %v", res.Err)
			}
		})
	}
}

// A holder that gives up and changes its mind may extend by a clock that is behind: the lease still is
// another one than what it gave up.
func TestLateReleaseDoesNotEndAnExtensionByASlowerClock(t *testing.T) {
	m, _ := raised(t, levelLeaseNames)
	first := noon.Add(LeaseSkew)
	take := func(index uint64, who string, at time.Time) (model.Lease, *model.Error) {
		var got model.Lease
		res := apply(t, m, index, &TakeLease{Name: "vip", Holder: who, At: at, TTL: 3 * time.Second})
		if res.Err == nil {
			if err := res.Decode(&got); err != nil {
				t.Fatal(err)
			}
		}
		return got, res.Err
	}
	given, _ := take(10, "a", first)
	for i, at := range []time.Time{noon, first} { // behind, and not a moment later
		again, err := take(uint64(11+3*i), "a", at)
		if err != nil || again.Expires.Before(given.Expires) {
			t.Fatalf("extended until %v: %v", again.Expires, err)
		}
		apply(t, m, uint64(12+3*i), &ReleaseLease{Name: "vip", Holder: "a", Expires: given.Expires})
		if _, err := take(uint64(13+3*i), "b", first); err == nil {
			t.Fatal("a second holder")
		}
		given = again
	}
	apply(t, m, 20, &ReleaseLease{Name: "vip", Holder: "a", Expires: given.Expires})
	if _, err := take(21, "b", first); err != nil {
		t.Errorf("not free after its release: %v", err)
	}
}
