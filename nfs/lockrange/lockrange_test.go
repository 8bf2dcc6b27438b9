package lockrange

import (
	"testing"

	"pgregory.net/rapid"
)

// TestSetAgainstBytes compares the set with one cell per byte.
func TestSetAgainstBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const size = 24
		var s Set
		var model [size]int // 0 free, 1 read, 2 write
		for i := rapid.IntRange(1, 40).Draw(t, "n"); i > 0; i-- {
			a := rapid.Uint64Range(0, size-1).Draw(t, "a")
			b := rapid.Uint64Range(a, size-1).Draw(t, "b")
			kind := rapid.IntRange(0, 2).Draw(t, "kind")
			r := Range{a, b, kind == 2}
			if kind == 0 {
				s.Unlock(r)
			} else {
				s.Lock(r)
			}
			for j := a; j <= b; j++ {
				model[j] = kind
			}
			check(t, &s, model[:])
		}
	})
}

func check(t *rapid.T, s *Set, model []int) {
	got := make([]int, len(model))
	rs := s.Ranges()
	for i, r := range rs {
		if i > 0 && (rs[i-1].End >= r.Start || rs[i-1].End+1 == r.Start && rs[i-1].Write == r.Write) {
			t.Fatalf("not sorted, disjoint and merged: %v", rs)
		}
		for j := r.Start; j <= r.End; j++ {
			got[j] = 1
			if r.Write {
				got[j] = 2
			}
		}
	}
	for i := range model {
		if got[i] != model[i] {
			t.Fatalf("byte %d is %d, want %d: %v", i, got[i], model[i], rs)
		}
	}
	probe := Range{3, 9, true}
	want := false
	for _, m := range model[3:10] {
		want = want || m != 0
	}
	if _, c := s.Conflict(probe); c != want {
		t.Fatalf("conflict is %v, want %v", c, want)
	}
}

func TestOf(t *testing.T) {
	tests := []struct {
		name     string
		off, len uint64
		end      uint64
		ok       bool
	}{
		{"zero length", 5, 0, 0, false},
		{"overflow", ^uint64(0), 2, 0, false},
		{"to the end", 5, ^uint64(0), ^uint64(0), true},
		{"last byte", ^uint64(0), 1, ^uint64(0), true},
		{"plain", 5, 3, 7, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, ok := Of(tt.off, tt.len, true)
			if ok != tt.ok || ok && r.End != tt.end {
				t.Fatalf("got %v, %v", r, ok)
			}
		})
	}
	var s Set
	s.Lock(Range{0, ^uint64(0), false})
	s.Unlock(Range{10, 19, false})
	if rs := s.Ranges(); len(rs) != 2 || rs[0].End != 9 || rs[1].Start != 20 || rs[1].Length() != ^uint64(0) {
		t.Fatalf("got %v", rs)
	}
}
