package lb

import (
	"fmt"
	"html"
	"net/http"
	"strings"
)

// page answers for the ingress itself: a title and lines of explanation, as
// HTML to browsers and plain text to others.
func page(w http.ResponseWriter, r *http.Request, status int, title string, lines ...string) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	var b strings.Builder
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		h.Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintf(&b, "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>%d %s</title>"+
			"<style>body{font:16px/1.5 system-ui,sans-serif;max-width:40em;margin:4em auto;padding:0 1em}</style><h1>%s</h1>\n",
			status, html.EscapeString(title), html.EscapeString(title))
		for _, l := range lines {
			fmt.Fprintf(&b, "<p>%s</p>\n", html.EscapeString(l))
		}
	} else {
		h.Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintf(&b, "%d %s\n", status, title)
		for _, l := range lines {
			fmt.Fprintln(&b, l)
		}
	}
	h.Set("Content-Length", fmt.Sprint(b.Len()))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write([]byte(b.String())) // nobody left to tell
	}
}

// maxListed hosts are named on the page for an unknown one.
const maxListed = 50

func unknownHost(w http.ResponseWriter, r *http.Request, t *Table) {
	host := cleanHost(r.Host)
	lines := []string{fmt.Sprintf("No app is routed at %s%s.", host, r.URL.Path)}
	switch {
	case len(t.names) == 0:
		lines = append(lines, "No host is routed yet. Deploy an app to give it one.")
	default:
		lines = append(lines, "Known hosts: "+strings.Join(t.names[:min(len(t.names), maxListed)], ", "))
		if more := len(t.names) - maxListed; more > 0 {
			lines = append(lines, fmt.Sprintf("and %d more.", more))
		}
	}
	page(w, r, http.StatusNotFound, "Unknown host", lines...)
}

func noBackend(w http.ResponseWriter, r *http.Request, s Service) {
	w.Header().Set("Retry-After", "1")
	page(w, r, http.StatusServiceUnavailable, "No healthy instance", "Service "+s.Name+" cannot answer: "+causeOf(s)+".")
}

func causeOf(s Service) string {
	draining := 0
	for _, b := range s.Backends {
		if b.Draining {
			draining++
		}
	}
	switch {
	case s.Cause != "":
		return s.Cause
	case draining > 0:
		return fmt.Sprintf("its last %d instances are being stopped", draining)
	case s.Name == "":
		return "it does not exist"
	default:
		return "it has no healthy instance"
	}
}
