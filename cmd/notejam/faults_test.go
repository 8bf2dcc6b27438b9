package main

import (
	"fmt"
	"net/http"
	"syscall"
	"testing"
	"time"
)

func TestKillInMidWriteKeepsAcknowledgedNotes(t *testing.T) {
	data := t.TempDir()
	survivor := start(t, data, "survivor")
	b := newBrowser(t)
	b.signUp(survivor.base, "ann@example.org")
	_, page := b.get(survivor.base + "/notes/create")
	token := tokenField.FindStringSubmatch(page)[1]

	acknowledged := map[string]bool{}
	for round := range 5 {
		victim := start(t, data, "victim")
		names := make(chan string, 1000)
		go func() {
			defer close(names)
			for n := 0; ; n++ {
				name := fmt.Sprintf("%d-%d", round, n)
				resp, err := b.client.PostForm(victim.base+"/notes/create", form("form_token", token, "name", name))
				if err != nil {
					return
				}
				resp.Body.Close()
				if resp.StatusCode == http.StatusOK {
					names <- name
				}
			}
		}()
		for range 3 {
			acknowledged[<-names] = true
		}
		victim.kill()
		for name := range names {
			acknowledged[name] = true
		}
		if status, body := b.submit(survivor.base+"/notes/create", "/notes/create", "name", fmt.Sprint("after ", round)); status != 200 {
			t.Fatalf("the survivor cannot write: %d\n%s", status, body)
		}
	}

	s := mustStore(t, data)
	var check string
	if err := s.db.QueryRow("PRAGMA integrity_check").Scan(&check); err != nil || check != "ok" {
		t.Fatalf("integrity: %s %v", check, err)
	}
	for name := range acknowledged {
		var n int
		if err := s.db.QueryRow("SELECT count(*) FROM notes WHERE name = ?", name).Scan(&n); err != nil || n != 1 {
			t.Errorf("acknowledged note %s is there %d times, %v", name, n, err)
		}
	}
}

func TestSigtermDrainsThenStops(t *testing.T) {
	p := start(t, t.TempDir(), "one", "NOTEJAM_DRAIN=400ms")
	p.cmd.Process.Signal(syscall.SIGTERM)
	p.waitStatus("/healthz", http.StatusServiceUnavailable)
	resp, err := http.Get(p.base + "/") // the listener still answers
	if err != nil || resp.StatusCode != 200 || !resp.Close {
		t.Fatalf("page while draining: %v %v", resp, err)
	}
	resp.Body.Close()
	select {
	case err := <-p.exit:
		p.exit <- err
		if err != nil {
			t.Fatalf("exit: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("did not stop")
	}
}

func TestHealthWhileAnotherInstanceHoldsTheLock(t *testing.T) {
	data := t.TempDir()
	p := start(t, data, "one")
	s := mustStore(t, data)
	tx, err := s.db.Begin() // IMMEDIATE: the write lock
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	p.waitStatus("/healthz", http.StatusOK)
}

func TestJournalIsNeverWAL(t *testing.T) {
	s := mustStore(t, t.TempDir())
	for pragma, want := range map[string]string{"journal_mode": "persist", "synchronous": "2", "busy_timeout": "2000", "foreign_keys": "1"} {
		var got string
		if err := s.db.QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s = %s, want %s (%v)", pragma, got, want, err)
		}
	}
}
