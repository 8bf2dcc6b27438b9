package replay

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
)

func same(h History) bool {
	first := record(h, 1)
	for range runs {
		if !bytes.Equal(first, record(h, 1)) {
			return false
		}
	}
	return true
}

func TestHazardsAreFound(t *testing.T) {
	left, set := 0, map[string]int{"a": 1, "b": 2, "c": 3}
	for name, tt := range map[string]struct {
		history History
		same    bool
	}{
		"pure": {func(r *rand.Rand, say Say) { say(r.IntN(1000), set, "text") }, true},
		"order of maps": {func(_ *rand.Rand, say Say) {
			for k := range set {
				say(k)
			}
		}, false},
		"leftovers":    {func(_ *rand.Rand, say Say) { left++; say(left) }, false},
		"other chance": {func(_ *rand.Rand, say Say) { say(rand.Uint64()) }, false},
	} {
		if got := same(tt.history); got != tt.same {
			t.Errorf("%s: replays exactly %v, want %v", name, got, tt.same)
		}
	}
	if d := difference([]byte("a\nb\n"), []byte("a\nc\n")); !strings.Contains(d, "output 2") {
		t.Error(d)
	}
	if d := difference([]byte("a\n"), []byte("a\n\n")); d != "1 outputs, and again 2" {
		t.Error(d)
	}
}
