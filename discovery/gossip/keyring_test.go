package gossip_test

import (
	"bytes"
	"testing"
	"time"
)

// A key goes through its phases member by member, and nobody is lost.
func TestKeysAreRotatedWhileMembersTalk(t *testing.T) {
	next := bytes.Repeat([]byte{9}, 32)
	first := start(t, "k0", "127.0.0.1", nil)
	second := start(t, "k1", "127.0.0.1", nil, first.Addr())
	until(t, first, "both", func() bool { return alive(first) == 2 })
	for _, keys := range [][][]byte{{key, next}, {next, key}, {next}} {
		if err := first.SetKeys(keys); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1200 * time.Millisecond) // two probes between the two changes
		if err := second.SetKeys(keys); err != nil {
			t.Fatal(err)
		}
		if alive(first) != 2 || alive(second) != 2 {
			t.Fatalf("lost at %d keys", len(keys))
		}
	}
	// Who has only the old key is a stranger now; with the new one he is not.
	late := start(t, "k2", "127.0.0.1", nil, first.Addr())
	if n, _ := late.Join([]string{first.Addr()}); n != 0 {
		t.Error("the old key still opens")
	}
	if err := late.SetKeys([][]byte{next}); err != nil {
		t.Fatal(err)
	}
	if _, err := late.Join([]string{first.Addr()}); err != nil {
		t.Error(err)
	}
	until(t, first, "all three", func() bool { return alive(first) == 3 })
	if err := first.SetKeys([][]byte{{1, 2, 3}}); err == nil {
		t.Error("a key of three bytes was taken")
	}
}
