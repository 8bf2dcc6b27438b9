package gossip

import (
	"cmp"
	"hash/fnv"
	"math"
	"slices"
)

const (
	// probeOthers is how many nodes beside the masters each node watches, about:
	// all of a small cluster, and in a large one enough that every node is
	// watched by some.
	probeOthers = 16
	// maxProbes bounds the links of one node, masters included: what a row holds.
	maxProbes = 28
)

// Peers chooses whom a node probes: all masters, and some others by a hash of
// the pair, so that two nodes either both watch each other or neither does.
// The masters come first, in the order of their ids.
func Peers(self string, masters, others []string) []string {
	out := without(masters, self)
	slices.Sort(out)
	rest := without(others, self)
	if len(rest) > probeOthers {
		limit := uint64(float64(math.MaxUint64) / float64(len(rest)) * probeOthers)
		rest = slices.DeleteFunc(rest, func(id string) bool { return pairHash(self, id) > limit })
	}
	slices.SortFunc(rest, func(a, b string) int { return cmp.Compare(pairHash(self, a), pairHash(self, b)) })
	out = append(out, rest...)
	return out[:min(len(out), maxProbes)]
}

func without(ids []string, self string) []string {
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return id == self })
}

func pairHash(a, b string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(min(a, b) + "/" + max(a, b)))
	x := h.Sum64() // FNV mixes its last bytes badly into the high bits
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	return x ^ x>>33
}
