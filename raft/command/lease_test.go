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
