package feed

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"pgregory.net/rapid"

	"appliance/raft"
)

// A reader at any valid position gets every entry behind it, in order, or is told that it cannot.
func TestRingNeverSkips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := newRing(rapid.IntRange(1, 8).Draw(t, "entries"), rapid.IntRange(1, 40).Draw(t, "bytes"))
		base := uint64(rapid.IntRange(0, 5).Draw(t, "base"))
		r.Restored(base)
		log := []uint64{base} // every index that was ever applied
		reader := 0           // position in log
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0, 1:
				prev := log[len(log)-1]
				var batch []raft.Entry
				for range rapid.IntRange(1, 4).Draw(t, "batch") {
					index := log[len(log)-1] + uint64(rapid.IntRange(1, 3).Draw(t, "hole"))
					batch = append(batch, raft.Entry{Index: index, Data: make([]byte, rapid.IntRange(0, 20).Draw(t, "size"))})
					log = append(log, index)
				}
				r.Applied(prev, batch)
			case 2:
				items, where, _ := r.next(log[reader], rapid.IntRange(1, 5).Draw(t, "max"))
				switch {
				case where == gone:
					reader = len(log) - 1 // a snapshot
				case where == ahead:
					t.Fatal("a valid position is ahead")
				case len(items) == 0 && reader != len(log)-1:
					t.Fatal("nothing given although there is more")
				}
				for _, it := range items {
					if it.prev != log[reader] || it.Index != log[reader+1] {
						t.Fatalf("after %d came %d (prev %d), want %d", log[reader], it.Index, it.prev, log[reader+1])
					}
					reader++
				}
			case 3:
				if len(r.items) > r.maxEntries || r.bytes > r.maxBytes {
					t.Fatalf("%d entries, %d bytes", len(r.items), r.bytes)
				}
			}
		}
	})
}

func TestRingLocate(t *testing.T) {
	r := newRing(2, 1000)
	r.Applied(0, []raft.Entry{{Index: 2, Term: 1}, {Index: 3, Term: 1}, {Index: 5, Term: 2}})
	for _, c := range []struct {
		name        string
		index, term uint64
		want        place
	}{
		{"at the end", 5, 2, within},
		{"at an entry", 3, 1, within},
		{"at the base", 2, 1, within},
		{"in a hole", 4, 1, gone},
		{"another history", 3, 2, gone},
		{"another history at the base", 2, 9, gone},
		{"dropped", 0, 0, gone},
		{"ahead", 6, 2, ahead},
	} {
		if got := r.locate(c.index, c.term); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add(appendItem(nil, item{1, raft.Entry{Index: 2, Term: 3, Data: []byte("x")}}))
	f.Add(appendFrame(nil, kindHeartbeat, []uint64{1, 2}, nil))
	f.Add(appendFrame(nil, kindEnd, nil, []byte{1, 2, 3, 4}))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, kindData})
	f.Add([]byte{0, 0, 0, 0, kindEntry})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		for {
			at := len(b) - r.Len()
			fr, err := readFrame(r)
			if err != nil {
				if err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, errFrame) {
					t.Errorf("untyped error %v", err)
				}
				return
			}
			again := appendFrame(nil, fr.kind, fr.nums[:numsOf[fr.kind]], fr.data)
			if !bytes.Equal(again, b[at:len(b)-r.Len()]) {
				t.Errorf("frame changed: %x", again)
			}
		}
	})
}
