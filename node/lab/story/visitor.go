package story

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// visitor is a browser on Notejam: cookies, forms, and where the page came
// from. It is used by one goroutine at a time.
type visitor struct {
	host  string // header: app-test
	http  *http.Client
	email string
	token string // of the forms; changes at login
}

// visitTime bounds one request. It is longer than any fault of the story
// lasts: a request that only waits is slow, not failed, and slow is measured.
const visitTime = 15 * time.Second

// newVisitor returns a browser that finds host at addr ("192.168.56.100:80").
func newVisitor(addr, host string, keepAlive bool) *visitor {
	jar, err := cookiejar.New(nil)
	if err != nil {
		panic(err) // never without a public suffix list
	}
	transport := &http.Transport{
		DisableKeepAlives: !keepAlive,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		},
	}
	return &visitor{host: host, http: &http.Client{Jar: jar, Transport: transport, Timeout: visitTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

func (v *visitor) close() { v.http.CloseIdleConnections() }

// page is an answer: what a reader sees.
type page struct {
	status   int
	body     string
	env      string // of the status line
	instance string // of the status line
	location string
}

var statusLine = regexp.MustCompile(`<footer id="status" data-environment="([^"]*)" data-instance="([^"]*)"`)

func (v *visitor) do(ctx context.Context, method, path string, form url.Values) (page, error) {
	var p page
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+v.host+path, body)
	if err != nil {
		return p, err
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := v.http.Do(req)
	if err != nil {
		return p, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	p = page{status: resp.StatusCode, body: string(text), location: resp.Header.Get("Location"), instance: resp.Header.Get("X-Notejam-Instance")}
	if m := statusLine.FindStringSubmatch(p.body); m != nil {
		p.env, p.instance = m[1], m[2]
	}
	return p, err
}

// get reads a page that must be there.
func (v *visitor) get(ctx context.Context, path string) (page, error) {
	p, err := v.do(ctx, http.MethodGet, path, nil)
	if err == nil && p.status != http.StatusOK {
		err = fmt.Errorf("GET %s answered %d: %s", path, p.status, gist(p.body))
	}
	return p, err
}

// gist is the part of an error page that says something.
func gist(body string) string {
	if m := regexp.MustCompile(`role="alert">([^<]*)<`).FindStringSubmatch(body); m != nil {
		return m[1]
	}
	return fmt.Sprintf("%.200s", body)
}

// post sends a form that must be accepted.
func (v *visitor) post(ctx context.Context, path string, form url.Values) (page, error) {
	form.Set("form_token", v.token)
	p, err := v.do(ctx, http.MethodPost, path, form)
	if err == nil && p.status != http.StatusSeeOther {
		err = fmt.Errorf("POST %s answered %d: %s", path, p.status, gist(p.body))
	}
	return p, err
}

var formToken = regexp.MustCompile(`name="form_token" value="([^"]+)"`)

// load reads a page with a form and keeps the form's token.
func (v *visitor) load(ctx context.Context, path string) error {
	p, err := v.get(ctx, path)
	if err != nil {
		return err
	}
	m := formToken.FindStringSubmatch(p.body)
	if m == nil {
		return fmt.Errorf("GET %s shows no form", path)
	}
	v.token = m[1]
	return nil
}

// signUp makes an account and logs in. It returns the instance that did.
func (v *visitor) signUp(ctx context.Context, email string) (string, error) {
	v.email = email
	if err := v.load(ctx, "/signup"); err != nil {
		return "", err
	}
	account := url.Values{"email": {email}, "password": {"correct horse"}, "confirm": {"correct horse"}}
	p, err := v.post(ctx, "/signup", account)
	if err != nil {
		return "", err
	}
	if !v.loggedIn() {
		if err := v.load(ctx, "/signin"); err != nil {
			return "", err
		}
		if p, err = v.post(ctx, "/signin", account); err != nil {
			return "", err
		}
	}
	return p.instance, v.load(ctx, "/notes/create")
}

func (v *visitor) loggedIn() bool {
	for _, c := range v.http.Jar.Cookies(&url.URL{Scheme: "http", Host: v.host, Path: "/"}) {
		if c.Name == "notejam_session" {
			return true
		}
	}
	return false
}

// write makes a note.
func (v *visitor) write(ctx context.Context, name, text string) (page, error) {
	p, err := v.post(ctx, "/notes/create", url.Values{"name": {name}, "text": {text}})
	if err == nil && !strings.HasPrefix(p.location, "/notes/") { // to the login page, for example
		err = fmt.Errorf("the new note was answered by a redirect to %s", p.location)
	}
	return p, err
}

// sees says whether the page is this user's, with the note in it.
func (v *visitor) sees(p page, note string) error {
	switch {
	case !strings.Contains(p.body, v.email):
		return fmt.Errorf("instance %s does not know the session of %s", p.instance, v.email)
	case !strings.Contains(p.body, ">"+note+"<"):
		return fmt.Errorf("instance %s does not show the note %q", p.instance, note)
	}
	return nil
}
