package mount

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	_ "modernc.org/sqlite"
)

func openDB(t testing.TB, dir string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "app.db")+"?_pragma=busy_timeout(30000)&_pragma=journal_mode(DELETE)&_pragma=synchronous(FULL)&_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { db.Close() })
	return db
}

// hammer increments a counter n times by reading and writing it back.
func hammer(db *sql.DB, who string, n int, step func(int)) error {
	for i := range n {
		if err := increment(db, fmt.Sprintf("%s-%d", who, i)); err != nil {
			return fmt.Errorf("%s, transaction %d: %w", who, i, err)
		}
		step(i)
	}
	return nil
}

func increment(db *sql.DB, id string) error {
	tx, err := db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback()
	var v int
	if err := tx.QueryRow("select n from counter").Scan(&v); err != nil {
		return err
	}
	if _, err := tx.Exec("update counter set n = ?", v+1); err != nil {
		return err
	}
	if _, err := tx.Exec("insert into log values (?)", id); err != nil {
		return err
	}
	return tx.Commit()
}

func testHammer(t *testing.T, each int, restarts int) {
	v := newVolume(t)
	dbs := []*sql.DB{openDB(t, v.mount(1)), openDB(t, v.mount(2))}
	if _, err := dbs[0].Exec("create table counter (n int); insert into counter values (0); create table log (id text primary key)"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	progress := make(chan bool, 4*each)
	errs := make(chan error, 2)
	for k, db := range dbs {
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs <- hammer(db, fmt.Sprint("host", k), each, func(int) { progress <- true })
		}()
	}
	for r := range restarts {
		for range 2 * each / (restarts + 1) {
			select {
			case <-progress:
			case <-time.After(30 * time.Second):
				t.Fatalf("no progress before restart %d", r)
			}
		}
		v.kill()
		v.start()
	}
	wg.Wait()
	for range dbs {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	for _, db := range dbs {
		var n, rows int
		var check string
		if err := db.QueryRow("select n, (select count(*) from log) from counter").Scan(&n, &rows); err != nil {
			t.Fatal(err)
		}
		if err := db.QueryRow("pragma integrity_check").Scan(&check); err != nil {
			t.Fatal(err)
		}
		if n != 2*each || rows != 2*each || !strings.EqualFold(check, "ok") {
			t.Errorf("counter %d, log %d, want %d; integrity %s", n, rows, 2*each, check)
		}
	}
}

func TestSQLiteTwoHosts(t *testing.T)       { testHammer(t, 100, 0) }
func TestSQLiteServerRestarts(t *testing.T) { testHammer(t, 150, 5) }
