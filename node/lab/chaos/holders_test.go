package chaos

import (
	"testing"
	"time"

	"appliance/node/lab/fault"
)

func TestOnlyWhatPartsTwoHoldersExcusesThem(t *testing.T) {
	cut := func(in, out []string) []fault.Fault { return []fault.Fault{{Kind: fault.Cut, In: in, Out: out}} }
	loss := func(percent float64) []fault.Fault { return []fault.Fault{{Kind: fault.Loss, Percent: percent}} }
	slow := func(rate uint64) []fault.Fault { return []fault.Fault{{Kind: fault.SlowLink, Rate: rate}} }
	for _, tt := range []struct {
		name string
		a, b []fault.Fault
		want bool
	}{
		{"nothing", nil, nil, false},
		{"cut from each other", cut([]string{"B"}, nil), cut([]string{"A"}, nil), true},
		{"one does not hear the other", cut([]string{"C", "B"}, nil), nil, true},
		{"one is not heard by the other", nil, cut([]string{"A"}, nil), true},
		{"what one sends to the other is dropped", cut(nil, []string{"B"}), nil, true},
		{"both cut from others", cut([]string{"C"}, nil), cut([]string{"C"}, []string{"D"}), false},
		{"cut from itself", cut([]string{"A"}, nil), nil, false},
		{"a tenth lost at both", loss(10), loss(10), false},
		{"a fifth lost", loss(20), nil, false},
		{"half lost", loss(50), nil, true},
		{"a third lost at both", loss(33), loss(33), true},
		{"a slow link", slow(100_000), nil, false},
		{"a starving one", nil, slow(1000), true},
		{"other faults", []fault.Fault{{Kind: fault.Pause}, {Kind: fault.HungDisk}}, []fault.Fault{{Kind: fault.Kill}}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := end{"A", tt.a}, end{"B", tt.b}
			if parts(a, b) != tt.want || parts(b, a) != tt.want {
				t.Errorf("parted: %v and %v, want %v", parts(a, b), parts(b, a), tt.want)
			}
		})
	}
}

func TestTwoHoldersForLongAreFound(t *testing.T) {
	began := time.Now()
	type look struct {
		after   time.Duration
		holders []string
		answer  bool // both
	}
	both, one := []string{"mm1", "mm2"}, []string{"mm1"}
	for _, tt := range []struct {
		name  string
		looks []look
		want  int
	}{
		{"soon one yields", []look{{0, both, true}, {900 * time.Millisecond, both, true}, {1200 * time.Millisecond, one, false}}, 0},
		{"none yields", []look{{0, both, true}, {600 * time.Millisecond, both, true}, {1200 * time.Millisecond, both, true}}, 1},
		{"a look without an answer between", []look{{0, both, true}, {600 * time.Millisecond, both, false}, {1200 * time.Millisecond, both, true}}, 1},
		{"twice for a moment", []look{{0, both, true}, {600 * time.Millisecond, one, false}, {1200 * time.Millisecond, both, true}}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := &watch{wrong: newVerdicts(t.Logf)}
			for _, l := range tt.looks {
				w.parted(l.holders)
				if l.answer {
					w.double("mm1", "mm2", began.Add(l.after))
				}
			}
			if got := w.wrong.violations(); got != tt.want {
				t.Errorf("%d violations, want %d", got, tt.want)
			}
		})
	}
}
