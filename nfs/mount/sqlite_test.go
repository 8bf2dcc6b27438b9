package mount

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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
	t.Parallel()
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

func TestSQLiteTwoHosts(t *testing.T)       { testHammer(t, 50, 0) }
func TestSQLiteServerRestarts(t *testing.T) { testHammer(t, 80, 5) }

// TestAcknowledgedIsDurable kills server and client at once: what an application was told is done
// must be there, and nothing else may be half there.
func TestAcknowledgedIsDurable(t *testing.T) {
	t.Parallel()
	v := newVolume(t)
	for round := range 2 {
		d := v.mount(10 + round)
		acked := make([]atomic.Int64, 3)
		var stop atomic.Bool
		var wg sync.WaitGroup
		for w := range acked {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for i := int64(1); !stop.Load(); i++ {
					if durably(d, round, w, i) != nil {
						return // the mount died
					}
					acked[w].Store(i)
				}
			}()
		}
		deadline := time.Now().Add(20 * time.Second)
		for acked[0].Load() < 25 && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
		v.kill()
		list, err := List(v.spec(0).StateDir)
		must(t, err)
		for _, st := range list {
			unix.Kill(st.PID, unix.SIGKILL)
		}
		for _, st := range list { // a process that is still dying holds its mount
			for st.alive() {
				time.Sleep(stopPoll)
			}
		}
		stop.Store(true)
		wg.Wait()
		v.start()
		d = v.mount(10 + round)
		for w := range acked {
			checkDurable(t, d, round, w, acked[w].Load())
		}
	}
}

func workDir(d string, round, w int) string { return fmt.Sprintf("%s/w%d-%d", d, round, w) }

// durably writes one more line with fsync, and makes, renames and removes names.
func durably(d string, round, w int, i int64) error {
	dir := workDir(d, round, w)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(dir+"/data", os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(fmt.Appendf(nil, "%07d\n", i), (i-1)*8); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.WriteFile(fmt.Sprintf("%s/tmp%d", dir, i), nil, 0o644); err != nil {
		return err
	}
	if err := os.Rename(fmt.Sprintf("%s/tmp%d", dir, i), fmt.Sprintf("%s/name%d", dir, i)); err != nil {
		return err
	}
	if i > 1 {
		return os.Remove(fmt.Sprintf("%s/name%d", dir, i-1))
	}
	return nil
}

func checkDurable(t *testing.T, d string, round, w int, acked int64) {
	t.Helper()
	dir := workDir(d, round, w)
	b, err := os.ReadFile(dir + "/data")
	must(t, err)
	for i := range acked {
		if want := fmt.Sprintf("%07d\n", i+1); string(b[8*i:8*i+8]) != want {
			t.Fatalf("round %d, writer %d: line %d is %q, acknowledged up to %d", round, w, i+1, b[8*i:8*i+8], acked)
		}
	}
	_, errThis := os.Stat(fmt.Sprintf("%s/name%d", dir, acked))
	_, errNext := os.Stat(fmt.Sprintf("%s/name%d", dir, acked+1))
	if (errThis == nil) == (errNext == nil) && errThis != nil {
		t.Fatalf("round %d, writer %d: name %d is gone: %v", round, w, acked, errThis)
	}
	if _, err := os.Stat(fmt.Sprintf("%s/name%d", dir, acked-1)); acked > 1 && err == nil {
		t.Fatalf("round %d, writer %d: removed name %d is back", round, w, acked-1)
	}
}
