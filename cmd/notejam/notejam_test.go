package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestStory(t *testing.T) {
	p := start(t, t.TempDir(), "test_notejam.one")
	b := newBrowser(t)
	if status, body := b.get(p.base + "/"); status != 200 || !strings.Contains(body, "Start a pad") ||
		!strings.Contains(body, `data-environment="test" data-instance="one" data-release="7" data-node="ms1"`) {
		t.Fatalf("front page: %d\n%s", status, body)
	}
	b.signUp(p.base, "ann@example.org")

	status, body := b.submit(p.base+"/pads/create", "/pads/create", "name", "Groceries")
	if status != 200 || !strings.Contains(body, "Groceries") {
		t.Fatalf("pad: %d\n%s", status, body)
	}
	status, body = b.submit(p.base+"/notes/create?pad=1", "/notes/create", "name", "Sunday", "text", "bread & <butter>", "pad", "1")
	if status != 200 || !strings.Contains(body, "bread &amp; &lt;butter&gt;") || !strings.Contains(body, `in <a href="/pads/1">`) {
		t.Fatalf("note: %d\n%s", status, body)
	}
	status, body = b.submit(p.base+"/notes/1/edit", "/notes/1/edit", "name", "Monday", "text", "milk", "pad", "")
	if status != 200 || !strings.Contains(body, "Monday") || strings.Contains(body, "butter") {
		t.Fatalf("edit: %d\n%s", status, body)
	}
	if _, body = b.get(p.base + "/?order=name"); !strings.Contains(body, `<a href="/notes/1">Monday</a>`) {
		t.Fatalf("list:\n%s", body)
	}
	if _, body = b.submit(p.base+"/notes/1", "/notes/1/delete"); !strings.Contains(body, "No notes here yet") {
		t.Fatalf("delete:\n%s", body)
	}

	status, body = b.submit(p.base+"/settings", "/settings", "current", "correct horse", "password", "battery staple", "confirm", "battery staple")
	if status != 200 || !strings.Contains(body, "password is changed") {
		t.Fatalf("settings: %d\n%s", status, body)
	}
	if _, body = b.submit(p.base+"/", "/signout"); !strings.Contains(body, "Start a pad") {
		t.Fatalf("sign-out:\n%s", body)
	}
	_, older := b.get(p.base + "/signin")
	for _, try := range []struct {
		password string
		want     int
	}{{"correct horse", 422}, {"battery staple", 200}} {
		if status, _ := b.submit(p.base+"/signin", "/signin", "email", "ANN@example.org", "password", try.password); status != try.want {
			t.Errorf("sign-in with %q: %d, want %d", try.password, status, try.want)
		}
	}
	if _, body := b.get(p.base + "/signin"); !strings.Contains(body, "ann@example.org") || !strings.Contains(body, "No notes here yet") {
		t.Errorf("the sign-in page does not lead a member to the notes:\n%s", body)
	}
	// A form that was opened in another window before the login is still good.
	again := form("email", "ann@example.org", "password", "battery staple", "form_token", tokenField.FindStringSubmatch(older)[1])
	if status, body := b.read(b.client.PostForm(p.base+"/signin", again)); status != 200 || !strings.Contains(body, "ann@example.org") {
		t.Errorf("sign-in by an older form: %d\n%s", status, body)
	}
}

func TestOneLoginManyInstances(t *testing.T) {
	data := t.TempDir()
	one, two := launch(t, data, "one"), launch(t, data, "two") // both migrate at once
	for _, p := range []*process{one, two} {
		p.waitStatus("/healthz", http.StatusOK)
	}
	b := newBrowser(t)
	b.signUp(one.base, "ann@example.org")
	if status, body := b.submit(two.base+"/notes/create", "/notes/create", "name", "From two", "text", "x"); status != 200 {
		t.Fatalf("note through the other instance: %d\n%s", status, body)
	}
	if _, body := b.get(one.base + "/"); !strings.Contains(body, "From two") || !strings.Contains(body, `data-instance="one"`) {
		t.Fatalf("list through the first:\n%s", body)
	}
	b.submit(two.base+"/", "/signout")
	if _, body := b.get(one.base + "/"); !strings.Contains(body, "Start a pad") {
		t.Fatal("signed out in one instance, still in the other")
	}
}

func TestInstancesWriteAtOnce(t *testing.T) {
	const each = 25
	data := t.TempDir()
	procs := []*process{start(t, data, "one"), start(t, data, "two")}
	b := newBrowser(t)
	b.signUp(procs[0].base, "ann@example.org")
	_, page := b.get(procs[0].base + "/notes/create")
	token := tokenField.FindStringSubmatch(page)[1]
	done := make(chan error)
	for i := range 4 {
		go func() {
			var err error
			for n := range each {
				name := fmt.Sprintf("note %d-%d", i, n)
				resp, e := b.client.PostForm(procs[i%2].base+"/notes/create", form("form_token", token, "name", name))
				if e != nil {
					err = e
					break
				}
				resp.Body.Close()
				if resp.StatusCode != 200 {
					err = fmt.Errorf("%s: %s", name, resp.Status)
				}
			}
			done <- err
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	var n int
	if err := mustStore(t, data).db.QueryRow("SELECT count(DISTINCT name) FROM notes").Scan(&n); err != nil || n != 4*each {
		t.Fatalf("%d notes of %d, %v", n, 4*each, err)
	}
}

func TestForgedFormsAreRefused(t *testing.T) {
	p := start(t, t.TempDir(), "one")
	b := newBrowser(t)
	b.signUp(p.base, "ann@example.org")
	other := newBrowser(t)
	other.signUp(p.base, "eve@example.org")
	_, page := other.get(p.base + "/notes/create")
	foreign := tokenField.FindStringSubmatch(page)[1]
	for _, tt := range []struct {
		name   string
		token  string
		header string
	}{
		{"no token", "", ""},
		{"token of another login", foreign, ""},
		{"another site", foreign, "cross-site"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req, _ := http.NewRequest("POST", p.base+"/notes/create", strings.NewReader(form("form_token", tt.token, "name", "x").Encode()))
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			if tt.header != "" {
				req.Header.Set("Sec-Fetch-Site", tt.header)
			}
			if status, body := b.read(b.client.Do(req)); status != http.StatusForbidden {
				t.Fatalf("%d\n%s", status, body)
			}
		})
	}
	if _, body := b.get(p.base + "/"); !strings.Contains(body, "No notes here yet") {
		t.Fatal("a forged note was saved")
	}
}

func TestOthersNotesAreNotThere(t *testing.T) {
	p := start(t, t.TempDir(), "one")
	ann, eve := newBrowser(t), newBrowser(t)
	ann.signUp(p.base, "ann@example.org")
	eve.signUp(p.base, "eve@example.org")
	ann.submit(p.base+"/pads/create", "/pads/create", "name", "Secret pad")
	ann.submit(p.base+"/notes/create", "/notes/create", "name", "Secret")
	for _, path := range []string{"/notes/1", "/notes/1/edit", "/pads/1", "/pads/1/edit", "/notes/x", "/nowhere"} {
		if status, _ := eve.get(p.base + path); status != http.StatusNotFound {
			t.Errorf("GET %s: %d", path, status)
		}
	}
	for _, path := range []string{"/notes/1/edit", "/notes/1/delete", "/pads/1/edit", "/pads/1/delete"} {
		if status, _ := eve.submit(p.base+"/notes/create", path, "name", "mine"); status != http.StatusNotFound {
			t.Errorf("POST %s: %d", path, status)
		}
	}
	if status, _ := eve.submit(p.base+"/notes/create", "/notes/create", "name", "x", "pad", "1"); status != 422 {
		t.Errorf("note into a foreign pad: %d", status)
	}
}

func TestBadInput(t *testing.T) {
	p := start(t, t.TempDir(), "one")
	b := newBrowser(t)
	for _, tt := range []struct{ name, email, password, confirm, want string }{
		{"no address", "nonsense", "longenough", "longenough", "not an e-mail"},
		{"short password", "a@b.c", "short", "short", "8 to 72"},
		{"passwords differ", "a@b.c", "longenough", "longenuogh", "differ"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, body := b.submit(p.base+"/signup", "/signup", "email", tt.email, "password", tt.password, "confirm", tt.confirm)
			if status != 422 || !strings.Contains(body, tt.want) {
				t.Fatalf("%d\n%s", status, body)
			}
		})
	}
	b.signUp(p.base, "ann@example.org")
	if status, body := newBrowser(t).submit(p.base+"/signup", "/signup", "email", "Ann@example.org", "password", "longenough", "confirm", "longenough"); status != 422 || !strings.Contains(body, "exists already") {
		t.Errorf("same address again: %d", status)
	}
	if status, _ := b.submit(p.base+"/notes/create", "/notes/create", "name", "  "); status != 422 {
		t.Errorf("empty name: %d", status)
	}
	if status, _ := b.submit(p.base+"/notes/create", "/notes/create", "name", "x", "text", strings.Repeat("x", maxText+1)); status != 422 {
		t.Errorf("long text: %d", status)
	}
	if status, _ := b.submit(p.base+"/notes/create", "/notes/create", "name", "x", "text", strings.Repeat("x", maxBody)); status != 413 {
		t.Errorf("huge body: %d", status)
	}
}

func TestNotReadyUntilTheVolumeIsThere(t *testing.T) {
	data := filepath.Join(t.TempDir(), "later")
	p := launch(t, data, "one")
	for _, path := range []string{"/healthz", "/readyz"} {
		p.waitStatus(path, http.StatusServiceUnavailable)
	}
	if status, _ := newBrowser(t).get(p.base + "/"); status != http.StatusOK {
		t.Errorf("front page without database: %d", status)
	}
	if err := os.Mkdir(data, 0o755); err != nil {
		t.Fatal(err)
	}
	p.waitStatus("/healthz", http.StatusOK)
}

func TestShort(t *testing.T) {
	for id, want := range map[string]string{"": "", "test_notejam.4f1c": "4f1c", "ms1": "ms1",
		"test_notejam.0123456789abcdef": "456789abcdef", "0123456789abcdef": "456789abcdef"} {
		if got := short(id); got != want {
			t.Errorf("%q: got %q, want %q", id, got, want)
		}
	}
}

func TestConfig(t *testing.T) {
	for _, tt := range []struct {
		name, key, value string
		ok               bool
	}{
		{"default", "", "", true},
		{"port", "PORT", "8080", true},
		{"port of a scheduler", "PORT0", "31005", true},
		{"port is a word", "PORT", "http", false},
		{"drain", "NOTEJAM_DRAIN", "5s", true},
		{"drain without unit", "NOTEJAM_DRAIN", "5", false},
		{"drain for ever", "NOTEJAM_DRAIN", "2h", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := configFromEnv(func(k string) string {
				if k == tt.key {
					return tt.value
				}
				return ""
			})
			if (err == nil) != tt.ok {
				t.Fatal(err)
			}
		})
	}
}
