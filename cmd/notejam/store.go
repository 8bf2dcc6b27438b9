package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// The database file lies on a network volume that instances on several hosts
// open at once. That decides the settings:
//   - a rollback journal, never WAL: WAL shares memory, hosts cannot;
//   - PERSIST, so the journal's name always exists: a cached "no such file"
//     on another host can then never hide a hot journal;
//   - synchronous=FULL: an acknowledged note is on the volume's disks;
//   - BEGIN IMMEDIATE for writes: two readers that both want to become
//     writers would deadlock until one fails.
const dsnOptions = "?_txlock=immediate" +
	"&_pragma=busy_timeout(2000)" +
	"&_pragma=journal_mode(PERSIST)" +
	"&_pragma=synchronous(FULL)" +
	"&_pragma=foreign_keys(1)" +
	"&_pragma=temp_store(MEMORY)"

const (
	// maxConns is small: writers queue for one file lock however many there are.
	maxConns = 4
	// busyBound is how long a statement is retried while other instances hold
	// the lock, beyond SQLite's own busy_timeout.
	busyBound = 8 * time.Second
)

// store is the shared database. Safe for concurrent use.
type store struct{ db *sql.DB }

// errNotFound says that the row is not there or belongs to someone else.
var errNotFound = errors.New("not found")

// openStore opens the file and brings the schema up to date. Several
// instances may do so at the same moment.
func openStore(ctx context.Context, path string) (*store, error) {
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+dsnOptions)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	db.SetMaxOpenConns(maxConns)
	db.SetMaxIdleConns(maxConns)
	s := &store{db: db}
	if err := s.migrate(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("migrate %s: %w", path, err), db.Close())
	}
	return s, nil
}

func (s *store) close() error { return s.db.Close() }

// ping proves that the file can be read. A busy file answers too: another
// instance is writing, which is health, not illness.
func (s *store) ping(ctx context.Context) error {
	var n int
	err := s.db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_master").Scan(&n)
	if isBusy(err) {
		return nil
	}
	return err
}

// write runs fn in one short write transaction, again from the start while
// the file is busy. fn must have no effect outside the transaction.
func (s *store) write(ctx context.Context, fn func(*sql.Tx) error) error {
	return retryBusy(ctx, func() error {
		tx, err := s.db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		if err := fn(tx); err != nil {
			return errors.Join(err, ignoreDone(tx.Rollback()))
		}
		if err := tx.Commit(); err != nil {
			return errors.Join(err, ignoreDone(tx.Rollback()))
		}
		return nil
	})
}

// read runs fn, again while the file is busy.
func (s *store) read(ctx context.Context, fn func(*sql.DB) error) error {
	return retryBusy(ctx, func() error { return fn(s.db) })
}

func retryBusy(ctx context.Context, fn func() error) error {
	deadline := time.Now().Add(busyBound)
	for {
		err := fn()
		if !isBusy(err) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(time.Duration(5+rand.IntN(45)) * time.Millisecond): // spread the instances
		}
	}
}

func isBusy(err error) bool {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	code := e.Code() & 0xff // extended codes keep the primary one in the low byte
	return code == sqlite3.SQLITE_BUSY || code == sqlite3.SQLITE_LOCKED
}

func isUnique(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE
}

func ignoreDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}
