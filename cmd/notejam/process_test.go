package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test binary be the application itself, so that tests run
// real processes on one database file.
func TestMain(m *testing.M) {
	if os.Getenv("NOTEJAM_TEST_SERVE") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// process is one running instance.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	base string
	exit chan error // one value, once the process is gone
}

var listening = regexp.MustCompile(`msg=serving addr=\S*:(\d+)`)

// start runs an instance on data and waits until it is ready.
func start(t *testing.T, data, name string, env ...string) *process {
	t.Helper()
	p := launch(t, data, name, env...)
	p.waitStatus("/readyz", http.StatusOK)
	return p
}

func launch(t *testing.T, data, name string, env ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(os.Args[0]), exit: make(chan error, 1)}
	p.cmd.Env = append(os.Environ(), append([]string{"NOTEJAM_TEST_SERVE=1", "PORT=0", "NOTEJAM_DATA=" + data,
		"APPLIANCE_ENV=test", "APPLIANCE_TASK_ID=" + name, "APPLIANCE_RELEASE=7", "APPLIANCE_NODE=ms1", "NOTEJAM_DRAIN=1ms"}, env...)...)
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	port := make(chan string, 1)
	go func() {
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			if m := listening.FindStringSubmatch(lines.Text()); m != nil {
				port <- m[1]
			}
		}
		p.exit <- p.cmd.Wait()
	}()
	t.Cleanup(p.kill)
	select {
	case n := <-port:
		p.base = "http://127.0.0.1:" + n
	case <-time.After(20 * time.Second):
		t.Fatalf("instance %s did not listen", name)
	}
	return p
}

func (p *process) kill() {
	p.cmd.Process.Kill()
	err := <-p.exit
	p.exit <- err
}

// waitStatus polls until path answers with the status.
func (p *process) waitStatus(path string, status int) {
	p.t.Helper()
	var got string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		resp, err := http.Get(p.base + path)
		if err != nil {
			got = err.Error()
			continue
		}
		resp.Body.Close()
		if got = resp.Status; resp.StatusCode == status {
			return
		}
	}
	p.t.Fatalf("%s did not answer %d; last: %s", path, status, got)
}

// browser keeps cookies by host name, so the same login goes to any instance
// on 127.0.0.1, as behind one proxy.
type browser struct {
	t      *testing.T
	client *http.Client
}

func newBrowser(t *testing.T) *browser {
	jar, _ := cookiejar.New(nil)
	return &browser{t, &http.Client{Jar: jar, Timeout: 30 * time.Second}}
}

func (b *browser) get(address string) (int, string) {
	b.t.Helper()
	resp, err := b.client.Get(address)
	return b.read(resp, err)
}

func (b *browser) read(resp *http.Response, err error) (int, string) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

var tokenField = regexp.MustCompile(`name="form_token" value="([^"]+)"`)

// submit loads the page of a form and sends it with its token.
func (b *browser) submit(page, action string, fields ...string) (int, string) {
	b.t.Helper()
	_, body := b.get(page)
	m := tokenField.FindStringSubmatch(body)
	if m == nil {
		b.t.Fatalf("no form on %s:\n%s", page, body)
	}
	u, _ := url.Parse(page)
	u.Path, u.RawQuery = action, ""
	resp, err := b.client.PostForm(u.String(), form(append(fields, "form_token", m[1])...))
	return b.read(resp, err)
}

func form(fields ...string) url.Values {
	v := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		v.Set(fields[i], fields[i+1])
	}
	return v
}

func (b *browser) signUp(base, email string) {
	b.t.Helper()
	status, body := b.submit(base+"/signup", "/signup", "email", email, "password", "correct horse", "confirm", "correct horse")
	if status != http.StatusOK || !strings.Contains(body, email) {
		b.t.Fatalf("sign-up: %d\n%s", status, body)
	}
}

func mustStore(t *testing.T, data string) *store {
	t.Helper()
	s, err := openStore(context.Background(), data+"/notejam.db")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.close() })
	return s
}
