// Package lockrange is a set of byte-range locks of one owner: sorted, disjoint, adjacent equal
// ranges merged. Server and client use the same type, so that they agree on what is held.
package lockrange

import "sort"

// Range is the bytes from Start to End inclusive. End is ^uint64(0) for "to the end".
type Range struct {
	Start, End uint64
	Write      bool
}

// Overlaps says whether the two ranges share a byte.
func (r Range) Overlaps(o Range) bool { return r.Start <= o.End && o.Start <= r.End }

// Conflicts says whether two owners cannot hold the ranges together.
func (r Range) Conflicts(o Range) bool { return r.Overlaps(o) && (r.Write || o.Write) }

// Of makes a range from an NFS offset and length. ok is false for a zero length or an overflow
// (RFC 8881 section 18.10.3); a length of all ones means to the end.
func Of(offset, length uint64, write bool) (r Range, ok bool) {
	if length == 0 {
		return r, false
	}
	if length == ^uint64(0) {
		return Range{offset, ^uint64(0), write}, true
	}
	if offset+length-1 < offset {
		return r, false
	}
	return Range{offset, offset + length - 1, write}, true
}

// Length is the NFS length of the range.
func (r Range) Length() uint64 {
	if r.End == ^uint64(0) {
		return ^uint64(0)
	}
	return r.End - r.Start + 1
}

// Set is an owner's ranges. The zero value is empty. Not safe for concurrent use.
type Set struct{ rs []Range }

// Empty says whether nothing is held.
func (s *Set) Empty() bool { return len(s.rs) == 0 }

// Len is the number of ranges.
func (s *Set) Len() int { return len(s.rs) }

// Ranges is a copy of what is held, in order.
func (s *Set) Ranges() []Range { return append([]Range(nil), s.rs...) }

// Conflict returns a held range that conflicts with r.
func (s *Set) Conflict(r Range) (Range, bool) {
	for _, h := range s.rs {
		if h.Conflicts(r) {
			return h, true
		}
	}
	return Range{}, false
}

// Lock adds r, which replaces (upgrades or downgrades) what the owner held in that range.
func (s *Set) Lock(r Range) {
	s.Unlock(r)
	i := sort.Search(len(s.rs), func(i int) bool { return s.rs[i].Start > r.Start })
	s.rs = append(s.rs, Range{})
	copy(s.rs[i+1:], s.rs[i:])
	s.rs[i] = r
	s.merge()
}

// Unlock removes the bytes of r, splitting a range that reaches beyond on both sides.
func (s *Set) Unlock(r Range) {
	var out []Range
	for _, h := range s.rs {
		if !h.Overlaps(r) {
			out = append(out, h)
			continue
		}
		if h.Start < r.Start {
			out = append(out, Range{h.Start, r.Start - 1, h.Write})
		}
		if h.End > r.End {
			out = append(out, Range{r.End + 1, h.End, h.Write})
		}
	}
	s.rs = out
}

func (s *Set) merge() {
	out := s.rs[:0]
	for _, r := range s.rs {
		if n := len(out); n > 0 && out[n-1].Write == r.Write && out[n-1].End+1 == r.Start && out[n-1].End != ^uint64(0) {
			out[n-1].End = r.End
			continue
		}
		out = append(out, r)
	}
	s.rs = out
}
