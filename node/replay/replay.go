// Package replay tests that a pure state machine replays exactly: a seed makes a long history of inputs, and the
// history makes the same outputs, byte for byte, whenever it is run. Whatever else has a say shows as a difference:
// the order of a map, the clock, an address, something that an earlier run left behind.
package replay

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
)

const (
	seeds = 3
	// runs of the first seed; the others run twice. Go visits a map in another
	// order each time: two keys of which a map says who is first stay hidden
	// in one of 2^19 tests.
	runs = 20
	// fewest different outputs of a run: with less it tests nothing.
	fewest = 50
)

// History makes a machine, feeds it inputs that follow from r alone, and says what comes out.
type History func(r *rand.Rand, say Say)

// Say takes outputs, which are compared as JSON beside their types; text is taken as it is.
type Say func(outputs ...any)

// Exactly fails t if the history is another one in one of many runs.
func Exactly(t *testing.T, h History) {
	t.Helper()
	for seed := range uint64(seeds) {
		first := record(h, seed)
		lines := map[string]bool{}
		for line := range bytes.Lines(first) {
			lines[string(line)] = true
		}
		if len(lines) < fewest {
			t.Fatalf("seed %d: %d different outputs are no history", seed, len(lines))
		}
		n := 2
		if seed == 0 {
			n = runs
		}
		for range n - 1 {
			if again := record(h, seed); !bytes.Equal(first, again) {
				t.Fatalf("seed %d: %s", seed, difference(first, again))
			}
		}
		t.Logf("seed %d: %d different outputs in %d bytes, SHA-256 %x in each of %d runs", seed, len(lines), len(first), sha256.Sum256(first), n)
	}
}

func record(h History, seed uint64) []byte {
	var b bytes.Buffer
	h(rand.New(rand.NewPCG(seed, 1)), func(outputs ...any) {
		for _, o := range outputs {
			if text, ok := o.(string); ok {
				fmt.Fprintln(&b, text)
				continue
			}
			raw, err := json.Marshal(o)
			fmt.Fprintf(&b, "%T %s %v\n", o, raw, err)
		}
	})
	return b.Bytes()
}

// difference quotes the first line in which two runs differ.
func difference(first, again []byte) string {
	a, b := bytes.Split(first, []byte("\n")), bytes.Split(again, []byte("\n"))
	for i := range min(len(a), len(b)) {
		if !bytes.Equal(a[i], b[i]) {
			return fmt.Sprintf("output %d was\n%.2000s\nand again\n%.2000s", i+1, a[i], b[i])
		}
	}
	return fmt.Sprintf("%d outputs, and again %d", len(a)-1, len(b)-1)
}

// One is one of some values.
func One[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }
