package state

import "slices"

// Counts returns the number of rows per table.
func (s *Snapshot) Counts() map[string]int {
	out := map[string]int{}
	for _, d := range registered {
		out[d.name] = d.count(s)
	}
	return out
}

// Replace makes every table but the kept ones equal to that of another view,
// as of index. Rows keep the index of their creation; all of them count as
// changed, so that no reader takes an older version for the present one.
func (t *Tx) Replace(index uint64, from *Snapshot, keep ...string) {
	for _, d := range registered {
		if !slices.Contains(keep, d.name) {
			d.replace(t, index, from)
		}
	}
}

func (t Table[T]) replace(tx *Tx, index uint64, from *Snapshot) {
	old := slices.Collect(t.All(&tx.Snapshot))
	for _, row := range old {
		if t.Get(from, t.key(row)) == nil {
			t.Delete(tx, index, t.key(row))
		}
	}
	for row := range t.All(from) {
		next := *row
		m := t.meta(&next)
		m.CreateIndex, m.ModifyIndex = min(m.CreateIndex, index), index
		tx.insert(t.Name, t.key(&next), &next)
		tx.touch(t.Name, index)
	}
}

// Last returns the row with the greatest id, nil if the table is empty.
func (t Table[T]) Last(s *Snapshot) *T {
	raw, err := s.txn.Last(t.Name, "id")
	must(err)
	if raw == nil {
		return nil
	}
	return raw.(*T)
}
