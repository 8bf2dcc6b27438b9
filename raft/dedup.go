package raft

// dedupSize is how many proposals are remembered. At 15,000 writes a second that is four seconds, many
// times what a retry takes; later retries are refused by their floor.
const dedupSize = 64 << 10

// dedup remembers the outcome of the last proposals. It is part of the replicated state: its content
// depends on the log only.
type dedup struct {
	size    int
	ring    []remembered
	next    int // slot that is overwritten next once the ring is full
	slot    map[ProposalID]int
	evicted uint64 // highest index that was forgotten
}

type remembered struct {
	id    ProposalID
	index uint64
	value any
}

func newDedup(size int) *dedup { return &dedup{size: size, slot: map[ProposalID]int{}} }

func (d *dedup) find(id ProposalID) (Outcome, bool) {
	i, ok := d.slot[id]
	if !ok {
		return Outcome{}, false
	}
	return Outcome{Index: d.ring[i].index, Value: d.ring[i].value}, true
}

func (d *dedup) add(r remembered) {
	if long, ok := r.value.(Longish); ok {
		if brief := long.Brief(); brief != nil {
			r.value = brief
		}
	}
	if len(d.ring) < d.size {
		d.slot[r.id] = len(d.ring)
		d.ring = append(d.ring, r)
		return
	}
	old := &d.ring[d.next]
	delete(d.slot, old.id)
	d.evicted = max(d.evicted, old.index)
	*old = r
	d.slot[r.id] = d.next
	d.next = (d.next + 1) % d.size
}

// forgotten reports whether a first attempt made at or after floor could have been evicted.
func (d *dedup) forgotten(floor uint64) bool { return d.evicted > floor }

// list returns a copy, oldest first.
func (d *dedup) list() []remembered {
	out := make([]remembered, 0, len(d.ring))
	out = append(out, d.ring[d.next:]...)
	return append(out, d.ring[:d.next]...)
}
