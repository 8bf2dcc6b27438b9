package state

import (
	"fmt"
	"iter"

	"appliance/node/model"

	"github.com/hashicorp/go-memdb"
)

// Table is the typed access to one table. Rows handed out are shared and must
// not be changed; Put stores a fresh row.
type Table[T any] struct {
	Name string
	key  func(*T) string
	meta func(*T) *model.Meta
}

// Get returns the row with the id, or nil.
func (t Table[T]) Get(s *Snapshot, id string) *T {
	raw := s.first(t.Name, id)
	if raw == nil {
		return nil
	}
	return raw.(*T)
}

// All yields every row in the order of ids.
func (t Table[T]) All(s *Snapshot) iter.Seq[*T] { return t.scan(s, "id") }

// Prefix yields the rows whose id begins with prefix, in the order of ids.
func (t Table[T]) Prefix(s *Snapshot, prefix string) iter.Seq[*T] {
	return t.scan(s, "id_prefix", prefix)
}

// By yields the rows whose secondary index has the value, in the order of ids.
func (t Table[T]) By(s *Snapshot, index, value string) iter.Seq[*T] {
	return t.scan(s, index, value)
}

func (t Table[T]) scan(s *Snapshot, index string, args ...any) iter.Seq[*T] {
	return func(yield func(*T) bool) {
		it, err := s.txn.Get(t.Name, index, args...)
		must(err)
		for raw := it.Next(); raw != nil; raw = it.Next() {
			if !yield(raw.(*T)) {
				return
			}
		}
	}
}

// Count is the number of rows.
func (t Table[T]) Count(s *Snapshot) int {
	n := 0
	for range t.All(s) {
		n++
	}
	return n
}

// Index is the log index of the table's last change.
func (t Table[T]) Index(s *Snapshot) uint64 { return s.TableIndex(t.Name) }

// Put stores the row, which the state owns from now on, and stamps it with
// the log index.
func (t Table[T]) Put(tx *Tx, index uint64, row *T) {
	t.Replace(tx, index, t.Get(&tx.Snapshot, t.key(row)), row)
}

// Replace is Put for a caller who knows which row the transaction has under the same id, nil if none.
func (t Table[T]) Replace(tx *Tx, index uint64, old, row *T) {
	m := t.meta(row)
	m.CreateIndex, m.ModifyIndex = index, index
	if old != nil {
		m.CreateIndex = t.meta(old).CreateIndex
	}
	tx.insert(t.Name, t.key(row), row)
	tx.touch(t.Name, index)
}

// Delete removes the row with the id and reports whether there was one.
func (t Table[T]) Delete(tx *Tx, index uint64, id string) bool {
	old := t.Get(&tx.Snapshot, id)
	if old == nil {
		return false
	}
	tx.remove(t.Name, id, old)
	tx.touch(t.Name, index)
	return true
}

// restore inserts a row from a snapshot as it is.
func (t Table[T]) restore(tx *Tx, row *T) { tx.insert(t.Name, t.key(row), row) }

func (t Table[T]) each(s *Snapshot, fn func(any) error) error {
	for row := range t.All(s) {
		if err := fn(row); err != nil {
			return err
		}
	}
	return nil
}

// keyIndexer indexes rows by a function. In a secondary index an empty key
// means "not in this index"; ids are always indexed, so that no command can
// make the state refuse a row. Keys end with a zero byte so that no key is a
// prefix of another.
type keyIndexer[T any] struct {
	key func(*T) string
	id  bool
}

func (k keyIndexer[T]) FromObject(raw any) (bool, []byte, error) {
	key := k.key(raw.(*T))
	if key == "" && !k.id {
		return false, nil, nil
	}
	return true, append([]byte(key), 0), nil
}

func (k keyIndexer[T]) FromArgs(args ...any) ([]byte, error) {
	s, err := oneString(args)
	return append([]byte(s), 0), err
}

func (k keyIndexer[T]) PrefixFromArgs(args ...any) ([]byte, error) {
	s, err := oneString(args)
	return []byte(s), err
}

func oneString(args []any) (string, error) {
	if len(args) == 1 {
		if s, ok := args[0].(string); ok {
			return s, nil
		}
	}
	return "", fmt.Errorf("want one string, got %v", args)
}

var _ memdb.PrefixIndexer = keyIndexer[int]{}
