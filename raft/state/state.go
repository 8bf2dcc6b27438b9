// Package state holds the replicated state of the cluster as typed, indexed,
// immutable tables with watches. It is pure: only the command package writes
// to it, and only from log entries.
//
// Readers take a Snapshot, which never changes and costs nothing, and wait on
// it for the next change, so no update can fall between reading and waiting.
package state

import (
	"context"
	"sync/atomic"

	"github.com/hashicorp/go-memdb"
)

// Store is the current state. Any number of readers may use it while one
// writer (the state machine) commits.
type Store struct {
	current atomic.Pointer[generation]
}

// generation is one database; a restore replaces it as a whole.
type generation struct {
	db        *memdb.MemDB
	abandoned chan struct{} // closed when a restore has replaced the generation
}

// New returns an empty state.
func New() *Store {
	s := &Store{}
	s.current.Store(newGeneration())
	return s
}

func newGeneration() *generation {
	db, err := memdb.NewMemDB(schema())
	if err != nil {
		panic("state: schema is invalid: " + err.Error()) // a fault in this package's table list
	}
	// A row that exists is watched alone; a missing one would wake its
	// watchers for every change nearby.
	txn := db.Txn(true)
	for _, name := range append(tableNames(), appliedRow) {
		must(txn.Insert(indexTable, &indexRow{Table: name}))
	}
	txn.Commit()
	return &generation{db: db, abandoned: make(chan struct{})}
}

// Index is the index of the last applied entry.
func (s *Store) Index() uint64 { return s.Snapshot().Index() }

// Snapshot returns an immutable view of the state as it is now.
func (s *Store) Snapshot() *Snapshot {
	g := s.current.Load()
	return &Snapshot{txn: g.db.Txn(false), abandoned: g.abandoned}
}

// Begin starts the only write transaction. The caller must end it by Commit
// or Abort. Concurrent calls wait for each other.
func (s *Store) Begin() *Tx {
	g := s.current.Load()
	tx := g.begin()
	tx.base, tx.own = g.db.Txn(false), map[rowID]any{} // after begin: nobody commits in between
	return tx
}

func (g *generation) begin() *Tx {
	return &Tx{Snapshot: Snapshot{txn: g.db.Txn(true), abandoned: g.abandoned}}
}

// Snapshot is an immutable view; safe for concurrent use.
type Snapshot struct {
	txn       *memdb.Txn
	abandoned <-chan struct{}
	// The rest is of transactions only.
	base  *memdb.Txn    // what was there before
	own   map[rowID]any // rows written, nil for those removed; a nil map looks into txn
	audit *auditRows    // the transaction's version of the audit log, nil as long as it is unchanged
}

type rowID struct{ table, id string }

// first returns the row with the id, or nil. A transaction does not look into what it writes: memdb then
// copies each path of the tree again for every write, instead of once.
func (s *Snapshot) first(table, id string) any {
	from := s.txn
	if s.own != nil {
		if row, known := s.own[rowID{table, id}]; known {
			return row
		}
		from = s.base
	}
	raw, err := from.First(table, "id", id)
	must(err)
	return raw
}

// Index is the log index that the view reflects.
func (s *Snapshot) Index() uint64 {
	raw, err := s.txn.First(indexTable, "id", appliedRow)
	if err != nil || raw == nil {
		return 0
	}
	return raw.(*indexRow).Index
}

// TableIndex is the log index of the last change of a table, 0 if untouched.
func (s *Snapshot) TableIndex(table string) uint64 {
	raw, err := s.txn.First(indexTable, "id", table)
	if err != nil || raw == nil {
		return 0
	}
	return raw.(*indexRow).Index
}

// Wait blocks until one of the tables has changed since the view was taken,
// the state was replaced by a restore, or ctx has ended, whose error it
// returns. Without tables it waits for any applied entry.
func (s *Snapshot) Wait(ctx context.Context, tables ...string) error {
	ws := memdb.NewWatchSet()
	ws.Add(s.abandoned)
	if len(tables) == 0 {
		tables = []string{appliedRow}
	}
	for _, name := range tables {
		ch, _, err := s.txn.FirstWatch(indexTable, "id", name)
		if err != nil {
			return err
		}
		ws.Add(ch)
	}
	return ws.WatchCtx(ctx)
}

// WaitIndex blocks until the store has applied index.
func (s *Store) WaitIndex(ctx context.Context, index uint64) error {
	for {
		snap := s.Snapshot()
		if snap.Index() >= index {
			return nil
		}
		if err := snap.Wait(ctx); err != nil {
			return err
		}
	}
}

// Tx is the write transaction of the state machine; not safe for concurrent
// use. Reads through it see its own writes.
type Tx struct {
	Snapshot
	touched map[string]uint64
}

func (t *Tx) insert(table, id string, row any) {
	must(t.txn.Insert(table, row))
	if t.own != nil {
		t.own[rowID{table, id}] = row
	}
}

func (t *Tx) remove(table, id string, row any) {
	must(t.txn.Delete(table, row))
	if t.own != nil {
		t.own[rowID{table, id}] = nil
	}
}

// Commit makes all writes visible at once, as of index.
func (t *Tx) Commit(index uint64) {
	t.settle(index)
	t.txn.Commit()
}

// settle writes what a transaction keeps beside the tree into it.
func (t *Tx) settle(index uint64) {
	if t.audit != nil {
		now := *t.audit
		must(t.txn.Insert(Audit.Name, &now))
	}
	for table, at := range t.touched {
		t.putIndex(table, at)
	}
	t.putIndex(appliedRow, index)
}

// Abort drops all writes.
func (t *Tx) Abort() { t.txn.Abort() }

func (t *Tx) touch(table string, index uint64) {
	if t.touched == nil {
		t.touched = map[string]uint64{}
	}
	t.touched[table] = index
}

func (t *Tx) putIndex(table string, index uint64) {
	must(t.txn.Insert(indexTable, &indexRow{Table: table, Index: index}))
}

// must turns memdb's errors, which only a wrong table list can cause, into a
// stop: going on would let this node diverge from the others.
func must(err error) {
	if err != nil {
		panic("state: " + err.Error())
	}
}
