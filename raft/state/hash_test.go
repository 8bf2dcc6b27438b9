package state

import (
	"testing"

	"appliance/node/model"
)

// What a replica hashes must not depend on how the log was cut into transactions, audit log included.
func TestViewInsideATransactionIsTheStateAtThatIndex(t *testing.T) {
	hash := func(s *Snapshot) Hash {
		t.Helper()
		h, err := s.Hash(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	write := func(tx *Tx, index uint64) {
		KVs.Put(tx, index, &model.KV{Key: string(rune('a' + index))})
		Audit.Append(tx, index, auditRow(index, index), 3)
	}
	one, many := New(), New()
	tx := one.Begin()
	var views []*Snapshot
	for i := uint64(1); i <= 5; i++ {
		write(tx, i)
		views = append(views, tx.View(i))
	}
	tx.Commit(5)
	for i := uint64(1); i <= 5; i++ {
		tx := many.Begin()
		write(tx, i)
		tx.Commit(i)
		if a, b := hash(views[i-1]), hash(many.Snapshot()); a.Sum != b.Sum {
			t.Errorf("at %d these tables differ: %v", i, a.Differences(b))
		}
	}
	if a, b := hash(one.Snapshot()), hash(many.Snapshot()); a.Sum != b.Sum {
		t.Error("the states differ in the end")
	}
}
